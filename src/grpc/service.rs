//! The snapshots service of containerd's API: messages in, messages out, and errors as the codes that containerd expects.
//!
//! Each request does its work on a thread for blocking work, in a task of its own: a client that goes away drops the
//! handler, but not the work in the middle.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_snapshots::api::types::Mount as ApiMount;
use containerd_snapshots::tonic::{self, Status};
use containerd_snapshots::{Info, Kind as ApiKind, Usage as ApiUsage};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_stream::Iter;

use crate::filter::Filters;
use crate::label::{self, Labels};
use crate::snapshotter::{Error, Snapshotter};
use crate::stack::Mount;
use crate::store::{Kind, Rows, Snapshot};
use crate::{store, tree};

/// Requests that may wait for a repository, at one time. tokio has 512 threads for blocking work; the rest of them stays
/// free for requests that never wait.
const MAX_WAITING: usize = 256;

/// The service.
pub struct Service {
    snapshotter: Arc<Snapshotter>,
    waiting: Arc<Semaphore>,
}

impl Service {
    /// The service for these snapshots.
    pub fn new(snapshotter: Arc<Snapshotter>) -> Self {
        Self { snapshotter, waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Runs work that may wait for a repository.
    async fn run_waiting<T: Send + 'static>(
        &self,
        call: &'static str,
        key: String,
        work: impl FnOnce(&Snapshotter, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let permit = self.waiting.clone().acquire_owned().await;
        self.run(call, key, move |snapshotter, key| {
            // Held by the work, which goes on when the client goes away.
            let _permit = permit;
            work(snapshotter, key)
        })
        .await
    }

    /// Runs the work to its end, also if nobody waits for the result any more.
    async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        key: String,
        work: impl FnOnce(&Snapshotter, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let snapshotter = self.snapshotter.clone();
        let done = spawn_blocking(move || {
            let begin = std::time::Instant::now();
            let result = work(&snapshotter, &key);
            let micros = begin.elapsed().as_micros();
            match &result {
                Ok(_) => tracing::debug!(call, key, micros, "done"),
                Err(Error::Held(target)) => tracing::debug!(call, key, micros, target_chain = target, "held"),
                Err(error) if is_fault(error) => tracing::error!(call, key, micros, %error, "failed"),
                Err(error) => tracing::debug!(call, key, micros, %error, "refused"),
            }
            result
        });
        match done.await {
            Ok(result) => result.map_err(|error| status(&error)),
            Err(panic) => Err(Status::internal(format!("{call} failed: {panic}"))),
        }
    }
}

/// Whether an operator should look at it.
fn is_fault(error: &Error) -> bool {
    match status(error).code() {
        tonic::Code::NotFound | tonic::Code::AlreadyExists | tonic::Code::InvalidArgument => false,
        tonic::Code::FailedPrecondition => matches!(error, Error::Rebase(_)),
        _ => true,
    }
}

/// The code that containerd expects for each error. Without a wildcard, so that a new error needs a decision.
fn status(error: &Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Held(_) => Status::already_exists(message),
        Error::Labels(_) | Error::Invalid(_) => Status::invalid_argument(message),
        Error::Committed(_) | Error::Rebase(_) | Error::TooLarge { .. } => Status::failed_precondition(message),
        Error::Unavailable(_) => Status::unavailable(message),
        Error::Store(error) => match error {
            store::Error::NotFound(_) | store::Error::ParentNotFound(_) => Status::not_found(message),
            store::Error::Exists(_) => Status::already_exists(message),
            store::Error::ParentNotCommitted(_) | store::Error::Labels(_) => Status::invalid_argument(message),
            store::Error::NotActive { .. } | store::Error::HasChildren(_) => Status::failed_precondition(message),
            store::Error::Damaged(_) => Status::data_loss(message),
            store::Error::Database(_) if error.is_full() => Status::resource_exhausted(message),
            store::Error::Database(_) => Status::internal(message),
        },
        Error::Tree(error) => match error {
            tree::Error::Lost(_) | tree::Error::Unwritten(_) => Status::data_loss(message),
            tree::Error::Io { .. } if error.is_full() => Status::resource_exhausted(message),
            tree::Error::Io { .. } | tree::Error::Open { .. } | tree::Error::Mounted(_) => Status::internal(message),
        },
    }
}

/// Labels as the client sent them.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
fn accept(labels: HashMap<String, String>) -> Result<Labels, Status> {
    label::accept(labels).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn mounts(mount: Mount) -> Vec<ApiMount> {
    let Mount { kind, source, options } = mount;
    vec![ApiMount { r#type: kind.to_owned(), source, target: String::new(), options }]
}

fn info(snapshot: Snapshot) -> Info {
    Info {
        kind: match snapshot.kind {
            Kind::View => ApiKind::View,
            Kind::Active => ApiKind::Active,
            Kind::Committed => ApiKind::Committed,
        },
        name: snapshot.name,
        parent: snapshot.parent,
        labels: snapshot.labels.into_iter().collect(),
        created_at: snapshot.created,
        updated_at: snapshot.updated,
    }
}

/// The result of a listing: taken as a whole first, so that a slow reader holds nothing back.
pub enum Listing {
    /// Everything; decoded one by one, so that a long listing stays small.
    All(Rows),
    /// What a filter matched.
    Some(std::vec::IntoIter<Snapshot>),
}

#[allow(clippy::result_large_err, reason = "the type is tonic's")]
impl Iterator for Listing {
    type Item = Result<Info, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::All(rows) => Some(rows.next()?.map(info).map_err(|error| status(&error.into()))),
            Self::Some(snapshots) => snapshots.next().map(|snapshot| Ok(info(snapshot))),
        }
    }
}

#[tonic::async_trait]
impl containerd_snapshots::Snapshotter for Service {
    type Error = Status;
    type InfoStream = Iter<Listing>;

    async fn stat(&self, key: String) -> Result<Info, Status> {
        self.run("Stat", key, Snapshotter::stat).await.map(info)
    }

    async fn update(&self, new: Info, fields: Option<Vec<String>>) -> Result<Info, Status> {
        // An empty value means "removed", and must not count as too large a label either.
        let labels = accept(new.labels)?;
        let fields = fields.unwrap_or_default();
        self.run("Update", new.name, move |s, name| s.update(name, &labels, &fields)).await.map(info)
    }

    async fn usage(&self, key: String) -> Result<ApiUsage, Status> {
        let usage = self.run("Usage", key, Snapshotter::usage).await?;
        let clamp = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(ApiUsage { inodes: clamp(usage.inodes), size: clamp(usage.bytes) })
    }

    async fn mounts(&self, key: String) -> Result<Vec<ApiMount>, Status> {
        self.run_waiting("Mounts", key, Snapshotter::mounts).await.map(mounts)
    }

    async fn prepare(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<ApiMount>, Status> {
        let labels = accept(labels)?;
        self.run_waiting("Prepare", key, move |s, key| s.prepare(key, &parent, labels)).await.map(mounts)
    }

    async fn view(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<ApiMount>, Status> {
        let labels = accept(labels)?;
        self.run_waiting("View", key, move |s, key| s.view(key, &parent, labels)).await.map(mounts)
    }

    async fn commit(&self, name: String, key: String, labels: HashMap<String, String>) -> Result<(), Status> {
        let labels = accept(labels)?;
        self.run("Commit", key, move |s, key| s.commit(&name, key, labels)).await
    }

    async fn remove(&self, key: String) -> Result<(), Status> {
        self.run("Remove", key, Snapshotter::remove).await
    }

    async fn clear(&self) -> Result<(), Status> {
        let cleaned = self.run("Cleanup", String::new(), |s, _| {
            if let Err(error) = s.cleanup() {
                // containerd takes any other answer for a failed garbage collection; it calls again after the next one.
                tracing::warn!(%error, "clean-up is not complete");
            }
            Ok(())
        });
        cleaned.await
    }

    async fn list(&self, _snapshotter: String, filters: Vec<String>) -> Result<Self::InfoStream, Status> {
        let filters = Filters::parse(&filters).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let listing = self.run("List", String::new(), move |s, _| {
            Ok(match filters.is_empty() {
                true => Listing::All(s.all()?),
                false => Listing::Some(s.select(&filters)?.into_iter()),
            })
        });
        Ok(tokio_stream::iter(listing.await?))
    }
}

#[cfg(test)]
mod tests;
