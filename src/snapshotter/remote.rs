//! Whether a layer is used where it lies, or downloaded.
//!
//! A download is always right, so every doubt ends in one, with its reason in the log.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::chain::PlanError;
use super::error::Error;
use super::sites::{Ahead, Located, Site, Wanted};
use super::{InFlight, Snapshotter};
use crate::digest::Digest;
use crate::key;
use crate::label::{self, Labels};
use crate::repository::{Present, Question, Trouble, Verify};
use crate::stack;
use crate::store::{Created, New, Snapshot, StoredPlan, What};

/// The question whether the result of extracting a layer is there already.
pub(super) struct Request<'a> {
    key: &'a str,
    parent: &'a str,
    labels: &'a Labels,
    /// The chain ID that is asked for.
    target: Digest,
}

/// What to do with a layer.
pub(super) enum Decision {
    /// It is there: a snapshot for it is committed.
    InPlace,
    /// It has to be downloaded.
    Download,
}

impl<'a> Request<'a> {
    /// The request that a Prepare makes, `None` if it is an ordinary one.
    ///
    /// Labels alone do not make one: annotations of pods reach the Prepare of the pause container.
    pub(super) fn new(key: &'a str, parent: &'a str, labels: &'a Labels) -> Result<Option<Self>, Error> {
        let Some(target) = key::extraction_target(key) else { return Ok(None) };
        if parent.is_empty() && labels.contains_key(label::PARENT_CHAIN_ID) {
            return Err(Error::Rebase(target.to_string()));
        }
        let asked = labels.get(label::TARGET).and_then(|asked| asked.parse().ok());
        Ok((asked == Some(target)).then_some(Self { key, parent, labels, target }))
    }

    /// The digest of the layer's blob.
    fn layer(&self) -> Result<Digest, String> {
        let name = [label::LAYER_DIGEST, label::STARGZ_DIGEST].into_iter().find_map(|l| self.labels.get(l));
        let Some(digest) = name else {
            return Err(format!(
                "the client sent no label {}: compare containerd's configuration with what `containerd-config` prints",
                label::LAYER_DIGEST
            ));
        };
        digest.parse().map_err(|e| format!("label {}: {e}", label::LAYER_DIGEST))
    }

    /// The layers above this one, as far as the client says.
    fn layers_above(&self) -> impl Iterator<Item = Digest> {
        let layers = self.labels.get(label::IMAGE_LAYERS).map_or("", String::as_str);
        layers.split(',').skip(1).filter_map(|digest| digest.trim().parse().ok())
    }

    /// What the chain says that the layer is.
    fn named(&self, chain: &[Snapshot]) -> Named {
        Named::new(Some(self.target), self.labels, chain.first())
    }
}

/// What a chain says that one of its layers is.
pub(super) struct Named {
    /// The chain ID of the layer and those below; `None` if it is not known.
    target: Option<Digest>,
    /// That of the layers below: `None` if there are none, an error if it is not known.
    parent: Result<Option<Digest>, ()>,
}

impl Named {
    fn new(target: Option<Digest>, labels: &Labels, parent: Option<&Snapshot>) -> Self {
        let parent = match parent {
            None => Ok(None),
            Some(parent) => {
                let named = parent.target().or_else(|| labels.get(label::PARENT_CHAIN_ID).map(String::as_str));
                named.and_then(|name| name.parse().ok()).map(Some).ok_or(())
            }
        };
        Self { target, parent }
    }

    /// That of a remote snapshot on top of `parent`.
    pub(super) fn of(snapshot: &Snapshot, parent: Option<&Snapshot>) -> Self {
        // The name that the store gave it; labels can be changed.
        let target = snapshot.name.split_once('@').and_then(|(target, _)| target.parse().ok());
        Self::new(target, &snapshot.labels, parent)
    }

    /// Whether a layer with this recorded diff ID is the one that the chain names.
    pub(super) fn verify(&self, verify: Verify, diff_id: Result<Option<Digest>, Trouble>) -> Result<(), String> {
        if verify == Verify::Off {
            return Ok(());
        }
        let diff_id = diff_id.map_err(|trouble| trouble.to_string())?;
        match (diff_id, self.parent, self.target) {
            (Some(diff_id), Ok(parent), Some(target)) if diff_id.chain(parent) == target => Ok(()),
            (Some(diff_id), Ok(_), Some(_)) => Err(format!(
                "has it with the diff ID {diff_id}, which is not the one that the image names: the image does not fit its layers, or layers.json of the repository is wrong"
            )),
            (None, ..) if verify == Verify::Required => {
                Err("records no diff ID for it, and the configuration requires one".to_owned())
            }
            (Some(_), ..) if verify == Verify::Required => {
                Err("cannot be compared with the image: the chain ID of the parent is not known".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Snapshotter {
    /// Looks for the layer, and commits a snapshot for it if it can be used in place.
    pub(super) fn decide(&self, request: &Request<'_>, chain: &[Snapshot]) -> Result<Decision, Error> {
        let image = request.labels.get(label::IMAGE_REF).map_or("", String::as_str);
        let layer = match request.layer() {
            Ok(layer) => layer,
            Err(reason) => {
                tracing::info!(target_chain = %request.target, image, reason, "layer is downloaded");
                return Ok(Decision::Download);
            }
        };
        let deadline = Instant::now() + self.marker_limit;
        let held = self.store.read()?.held(&request.target.to_string(), request.parent)?;
        if let Some(held) = held {
            return Ok(match self.check_held(&held, layer, request, chain, deadline) {
                Ok(()) => Decision::InPlace,
                Err(reason) => {
                    tracing::warn!(%layer, image, reason, "layer is downloaded");
                    Decision::Download
                }
            });
        }
        let mut reasons = String::new();
        for site in self.sites().iter() {
            match self.try_site(site, layer, request, chain, deadline)? {
                Ok(()) => {
                    tracing::info!(%layer, image, repository = site.repository.name(), "layer is used in place");
                    return Ok(Decision::InPlace);
                }
                Err(reason) => {
                    let separator = if reasons.is_empty() { "" } else { "; " };
                    let _ = write!(reasons, "{separator}repository {:?} {reason}", site.repository.name());
                }
            }
        }
        if reasons.is_empty() {
            reasons.push_str("no repository is configured");
        }
        tracing::info!(%layer, image, reason = reasons, "layer is downloaded");
        Ok(Decision::Download)
    }

    /// Whether the layer that is held for the target can be used now for a client that names `asked`.
    ///
    /// Under another digest it has to be proved that it is what the chain ID names. Else an image could claim the diff
    /// IDs of another one for its own layer, and everybody who pulls that other image would get it. The proof is also
    /// wanted where the configuration requires it, since that may have changed.
    fn check_held(
        &self,
        held: &Snapshot,
        asked: Digest,
        request: &Request<'_>,
        chain: &[Snapshot],
        deadline: Instant,
    ) -> Result<(), String> {
        let link = self.tree.link(held.id);
        let Some(held) = held.remote_layer() else { return Err("another snapshot is held for it".to_owned()) };
        let sites = self.sites();
        let wanted = Wanted { layer: held, link, named: request.named(chain) };
        let located = sites.locate(&[wanted], deadline).map_err(|reason| reason.to_string())?;
        let repository = &located[&held].site.repository;
        let verify = repository.verify();
        if held == asked && verify != Verify::Required {
            return Ok(());
        }
        let refusal = |why: &str| format!("layer {held} is held for it; repository {:?} {why}", repository.name());
        let answers = repository.ask(vec![Question { layer: held, records: true }], deadline);
        let present = answers.and_then(|mut answers| answers.pop().unwrap_or(Ok(None)));
        let present = present.map_err(|trouble| refusal(&trouble.to_string()))?;
        match present.and_then(|present| present.diff_id.ok().flatten()).filter(|_| verify != Verify::Off) {
            None => Err(refusal("has no record of its diff ID that would prove that it is the same")),
            diff_id => request.named(chain).verify(Verify::Required, Ok(diff_id)).map_err(|why| refusal(&why)),
        }
    }

    /// Tries one repository; the inner error is the reason why not.
    fn try_site(
        &self,
        site: &Arc<Site>,
        layer: Digest,
        request: &Request<'_>,
        chain: &[Snapshot],
        deadline: Instant,
    ) -> Result<Result<(), String>, Error> {
        let verify = site.repository.verify();
        let question = Question { layer, records: true };
        let answer = match site.repository.ask(vec![question], deadline) {
            Ok(mut answers) => answers.pop().unwrap_or(Ok(None)),
            Err(trouble) => return Ok(Err(trouble.to_string())),
        };
        let Present { identity, diff_id, leaves_out_directories } = match answer {
            Ok(Some(present)) => present,
            Ok(None) => return Ok(Err("does not have it".to_owned())),
            Err(trouble) => return Ok(Err(trouble.to_string())),
        };
        if let Err(reason) = request.named(chain).verify(verify, diff_id) {
            return Ok(Err(reason));
        }
        if leaves_out_directories && !chain.is_empty() {
            let reason = "has it, but its archive leaves out directories: their owners, modes and times are those of the layers below, which a layer in place cannot show";
            return Ok(Err(reason.to_owned()));
        }
        self.look_ahead(site, layer, &identity, request);
        let at = Located { site, identity };
        let plan = match self.plan(layer, &at, deadline) {
            Ok(plan) => plan,
            Err(PlanError::Walk(error)) => return Ok(Err(format!("has it, but {error}"))),
            Err(PlanError::Store(error)) => return Err(error.into()),
        };
        let in_flight = InFlight::new(self)?;
        let id = in_flight.id();
        let mut layers = vec![self.layer(id, layer, &plan)];
        layers.extend(self.estimate(chain)?);
        if let Err(reason) = stack::fits(self.tree.snapshots(), &layers, request.layers_above().count()) {
            return Ok(Err(format!("has it, but the image has too many layers to use it in place: {reason}")));
        }
        let made = self.tree.create_remote(id, &site.repository.layer_directory(layer));
        // What the layer asks for may be more than this file system can do, and a download asks for less of it.
        if let Err(error) = made.and_then(|()| self.tree.ensure_extras(id, &plan, false)) {
            return Ok(Err(format!("has it, but what hides its deleted files cannot be made: {error}")));
        }
        let stored = StoredPlan { identity: at.identity, bytes: plan.encode() };
        let target = request.target.to_string();
        let new = New {
            id,
            key: request.key,
            parent: request.parent,
            labels: request.labels.clone(),
            what: What::Remote { layer, target: &target, plan: &stored },
        };
        match in_flight.store(new)? {
            Created::New(_) => Ok(Ok(())),
            // Somebody else was faster, maybe with another layer for the same target.
            Created::Held(held) => Ok(self.check_held(&held, layer, request, chain, deadline)),
        }
    }

    /// Has the markers of the layers above found in the background, while this one is worked on.
    fn look_ahead(&self, site: &Arc<Site>, layer: Digest, identity: &str, request: &Request<'_>) {
        // Where this layer's markers are known, an earlier Prepare of the image has looked ahead already.
        if site.finder.known(layer, identity).is_some() && !request.parent.is_empty() {
            return;
        }
        let mut above: Vec<Digest> = request.layers_above().filter(|above| *above != layer).collect();
        above.dedup();
        if above.is_empty() {
            return;
        }
        let Some(ahead) = Ahead::begin(site) else { return };
        let stored = |layer| self.store.read().and_then(|reader| reader.plan(layer)).ok().flatten();
        let above: Vec<_> = above.into_iter().map(|layer| (layer, stored(layer).map(|plan| plan.identity))).collect();
        let limit = self.marker_limit;
        let name = format!("ahead {}", site.repository.name());
        // If it cannot begin, each layer's own Prepare finds its markers.
        let _ = std::thread::Builder::new().name(name).spawn(move || {
            let site = &ahead.0;
            let deadline = Instant::now() + limit;
            // One by one, so that who waits for an answer does not wait for all of these. The lowest is needed first.
            for (layer, stored) in above {
                if Instant::now() > deadline {
                    return;
                }
                let question = Question { layer, records: false };
                let Ok(mut answers) = site.repository.ask(vec![question], deadline) else { return };
                let Some(Ok(Some(Present { identity, .. }))) = answers.pop() else { continue };
                if stored.is_none_or(|stored| stored != identity) {
                    site.finder.look_ahead(layer, &identity);
                }
            }
        });
    }
}
