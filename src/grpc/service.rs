//! The snapshots service of containerd's API: messages in, messages out, and errors as the codes that containerd expects.
//!
//! Each request does its work on a thread for blocking work, in a task of its own: a client that goes away drops the
//! handler, but not the work in the middle.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_snapshots::api::types::Mount as ApiMount;
use containerd_snapshots::tonic::{self, Status};
use containerd_snapshots::{Info, Usage as ApiUsage};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_stream::Iter;

use super::convert::{Listing, accept, info, mounts};
use super::status::{existing, is_fault, status};
use crate::containerd::filter::Filters;
use crate::snapshotter::{Error, Prepared, Snapshotter};

/// Requests that may wait for a repository, at one time. tokio has 512 threads for blocking work; the rest of them stays
/// free for requests that never wait.
const MAX_WAITING: usize = 256;

/// The service.
pub(super) struct Service {
    snapshotter: Arc<Snapshotter>,
    waiting: Arc<Semaphore>,
}

impl Service {
    /// The service for these snapshots.
    pub(super) fn new(snapshotter: Arc<Snapshotter>) -> Self {
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
        match self.run_waiting("Prepare", key, move |s, key| s.prepare(key, &parent, labels)).await? {
            Prepared::Mount(mount) => Ok(mounts(mount)),
            Prepared::Existing { target } => {
                tracing::debug!(call = "Prepare", target_chain = target, "exists already");
                Err(existing(&target))
            }
        }
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
                tracing::warn!(%error, "clean-up is incomplete; containerd asks again after its next garbage collection");
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
