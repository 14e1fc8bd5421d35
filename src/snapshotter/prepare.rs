//! Prepare and View: makes a snapshot, or finds that its layer lies in a repository.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Error;
use super::in_flight::InFlight;
use super::mounting;
use super::plans::{PlanError, estimate, plan, stacked};
use super::resolve::Resolver;
use crate::containerd::key;
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::in_place::{self, Current, LayerLocation, Refusal, Refusals, Request, Source};
use crate::overlay::mount::{Mount, fits};
use crate::overlay::stack::Layer;
use crate::state::State;
use crate::state::metadata::{self, Created, Kind, New, NewKind, Reader, Snapshot, StoredPlan};

/// The result of a Prepare.
#[derive(Debug)]
pub enum Prepared {
    /// A snapshot was made; this is its mount.
    Mount(Mount),
    /// The result of the extraction exists: nothing needs to be extracted.
    Existing {
        /// The chain ID that was asked for.
        target: String,
    },
}

/// What a snapshot is made with.
pub(super) struct Preparation<'a> {
    pub state: &'a State,
    pub repositories: &'a Current,
    pub limit: Duration,
    pub in_flight: &'a InFlight,
}

/// A layer is not used in place.
enum NotUsed {
    /// It is downloaded.
    Refused(Refusal),
    /// The request fails.
    Failed(Error),
}

/// What the store knows of a layer and of the chain below it, read before any repository is asked: a view of the store
/// that is held while a repository hangs would keep the file from reusing its space.
struct Known<'a> {
    chain: &'a [Snapshot],
    /// The remote commit for the target and its layer, if there is one.
    existing: Option<(Snapshot, Digest)>,
    /// The stack of the chain, as far as it is known without asking.
    stack: Vec<Layer>,
}

impl<E: Into<Error>> From<E> for NotUsed {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Preparation<'_> {
    /// Makes an active snapshot, unless what it is for exists.
    pub(super) fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Prepared, Error> {
        let (reader, chain) = self.check_new(key, parent, &labels)?;
        if let Some(request) = Request::new(key, parent, &labels)? {
            let existing = reader.existing(&request.target.to_string(), parent)?;
            let existing = existing.and_then(|snapshot| snapshot.remote_layer().map(|layer| (snapshot, layer)));
            let known = Known { existing, stack: estimate(self.state, &reader, &chain)?, chain: &chain };
            drop(reader);
            match self.use_in_place(&request, &known)? {
                Ok(()) => return Ok(Prepared::Existing { target: request.target.to_string() }),
                Err(refusals) => log(&request, &refusals),
            }
        } else {
            drop(reader);
        }
        self.make(key, parent, labels, &chain, NewKind::Active).map(Prepared::Mount)
    }

    /// Makes an ordinary snapshot.
    pub(super) fn create(&self, key: &str, parent: &str, labels: Labels, kind: NewKind<'_>) -> Result<Mount, Error> {
        let (reader, chain) = self.check_new(key, parent, &labels)?;
        drop(reader);
        self.make(key, parent, labels, &chain, kind)
    }

    /// The checks that come before anything else; the store as it is now, and the chain of the parent.
    fn check_new(&self, key: &str, parent: &str, labels: &Labels) -> Result<(Reader, Vec<Snapshot>), Error> {
        label::check(labels)?;
        if key.is_empty() {
            return Err(Error::Invalid("a snapshot needs a key".to_owned()));
        }
        let reader = self.state.metadata.read()?;
        if reader.find(key)?.is_some() {
            return Err(metadata::Error::Exists(key.to_owned()).into());
        }
        let chain = reader.chain(parent)?;
        Ok((reader, chain))
    }

    fn make(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
        chain: &[Snapshot],
        kind: NewKind<'_>,
    ) -> Result<Mount, Error> {
        let Self { state, limit, .. } = self;
        let repositories = self.repositories.get();
        let resolved = Resolver { state, repositories: &repositories, limit: *limit }.resolve(chain)?;
        let making = self.in_flight.begin(state)?;
        let id = making.id();
        let is_active = matches!(kind, NewKind::Active);
        if is_active || parent.is_empty() {
            // Labels of an extraction come from the image, and what is extracted is for every image with this layer.
            let mapped = if key::extraction_target(key).is_some() { None } else { mapped_owner(&labels) };
            if mapped.is_some() {
                tracing::warn!(
                    key,
                    "containers in user namespaces are not supported: containerd copies the whole image; on containerd 2 add the capability \"only-remap-ids\" to make it fail at once"
                );
            }
            state.directories.create_local(id, mapped.or(resolved.owner), is_active)?;
        }
        // Before it is stored: a snapshot that cannot be mounted does not come to be.
        let mounted_as = if is_active { Kind::Active } else { Kind::View };
        let mount = mounting::mount(&state.directories, id, key, mounted_as, &resolved.layers)?;
        making.store(New { id, key, parent, labels, kind })?;
        Ok(mount)
    }

    /// Looks for the layer, and commits a snapshot for it if it can be used in place.
    fn use_in_place(&self, request: &Request<'_>, known: &Known<'_>) -> Result<Result<(), Refusals>, Error> {
        let layer = match request.layer() {
            Ok(layer) => layer,
            Err(refusal) => return Ok(Err(Refusals::Request(refusal))),
        };
        let deadline = Instant::now() + self.limit;
        if let Some((existing, existing_layer)) = &known.existing {
            let proved = self.prove(existing.id, *existing_layer, layer, request, known, deadline);
            return Ok(proved.map_err(Refusals::Request));
        }
        let mut refusals = Vec::new();
        for source in self.repositories.get().iter() {
            let name = source.repository.name();
            match self.try_repository(source, layer, request, known, deadline) {
                Ok(()) => {
                    tracing::info!(%layer, image = request.image(), repository = name, "layer is used in place");
                    return Ok(Ok(()));
                }
                Err(NotUsed::Refused(refusal)) => refusals.push((name.to_owned(), refusal)),
                Err(NotUsed::Failed(error)) => return Err(error),
            }
        }
        Ok(Err(Refusals::of_repositories(refusals)))
    }

    /// Whether the existing layer `layer`, of the snapshot `id`, can be used for a client that names `asked`.
    fn prove(
        &self,
        id: u64,
        layer: Digest,
        asked: Digest,
        request: &Request<'_>,
        known: &Known<'_>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let link = self.state.directories.link(id);
        let expected = request.expected(known.chain);
        in_place::prove(layer, link, asked, expected, &self.repositories.get(), deadline)
    }

    /// Tries one repository.
    fn try_repository(
        &self,
        source: &Arc<Source>,
        layer: Digest,
        request: &Request<'_>,
        known: &Known<'_>,
        deadline: Instant,
    ) -> Result<(), NotUsed> {
        let Self { state, .. } = self;
        let refused = NotUsed::Refused;
        let expected = request.expected(known.chain);
        let examined = in_place::examine(source, layer, &expected, known.chain.is_empty(), deadline);
        let identity = examined.map_err(refused)?;
        let stored = |layers: &[Digest]| {
            let reader = state.metadata.read().ok();
            let plan = |layer| reader.as_ref()?.plan(layer).ok()?;
            layers.iter().map(|layer| plan(*layer).map(|plan| plan.identity)).collect()
        };
        in_place::look_ahead(source, layer, &identity, request, stored, self.limit);
        let at = LayerLocation { source, identity };
        let plan = match plan(state, layer, &at, deadline) {
            Ok(plan) => plan,
            Err(PlanError::Walk(error)) => return Err(refused(Refusal::Markers(error))),
            Err(PlanError::Metadata(error)) => return Err(error.into()),
        };
        let making = self.in_flight.begin(state)?;
        let id = making.id();
        let mut layers = vec![stacked(state, id, layer, &plan)];
        layers.extend_from_slice(&known.stack);
        fits(state.directories.snapshots(), &layers, request.layers_above().count())
            .map_err(|error| refused(Refusal::TooManyLayers(error)))?;
        let made = state.directories.create_remote(id, &source.repository.layer_directory(layer));
        // What the layer asks for may be more than this file system can do, and a download asks for less of it.
        made.and_then(|()| state.directories.ensure_overlay_directories(id, &plan, false))
            .map_err(|error| refused(Refusal::CannotHide(Arc::new(error))))?;
        let target = request.target.to_string();
        let new = New {
            id,
            key: request.key,
            parent: request.parent,
            labels: request.labels.clone(),
            kind: NewKind::Remote { layer, target: &target, plan: &StoredPlan::new(at.identity, &plan) },
        };
        match making.store(new)? {
            Created::New(_) => Ok(()),
            // Somebody else was faster, maybe with another layer for the same target.
            Created::Existing(existing) => {
                let existing_layer = existing.remote_layer().unwrap_or(layer);
                let proved = self.prove(existing.id, existing_layer, layer, request, known, deadline);
                proved.map_err(refused)
            }
        }
    }
}

/// Says why a layer is downloaded.
fn log(request: &Request<'_>, refusals: &Refusals) {
    let (target_chain, image) = (request.target, request.image());
    let layer = request.layer().ok().map(tracing::field::display);
    let (refusal, reason) = (refusals.name(), refusals.to_string());
    if refusals.concerns_existing() {
        tracing::warn!(layer, %target_chain, image, refusal, reason, "layer is downloaded");
    } else {
        tracing::info!(layer, %target_chain, image, refusal, reason, "layer is downloaded");
    }
}

/// The owner that a container in a user namespace has for root.
fn mapped_owner(labels: &Labels) -> Option<(u32, u32)> {
    let root = |name| labels.get(name).and_then(|mapping| label::mapped_root(mapping));
    root(label::UID_MAPPING).zip(root(label::GID_MAPPING))
}
