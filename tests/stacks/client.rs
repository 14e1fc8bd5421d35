//! containerd's side of the snapshots API, as far as a pull and a container need it.

use std::collections::HashMap;
use std::path::Path;

use containerd_snapshots::api::snapshots::v1 as api;
use containerd_snapshots::api::types::Mount;
use containerd_snapshots::tonic::Status;
use containerd_snapshots::tonic::transport::{Channel, Endpoint};
use tokio::runtime::Runtime;

/// A connection to the daemon.
pub(crate) struct Client {
    runtime: Runtime,
    client: api::snapshots_client::SnapshotsClient<Channel>,
}

/// A snapshot that is to be made.
pub(crate) struct New<'a> {
    pub(crate) key: &'a str,
    pub(crate) parent: &'a str,
    pub(crate) labels: HashMap<String, String>,
}

const SNAPSHOTTER: &str = "cvmfs-snapshotter";

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_| tokio::net::UnixStream::connect(socket.clone()));
        let channel = async { Endpoint::from_static("http://localhost").connect_with_connector(connect).await };
        let channel = runtime.block_on(channel).expect("the socket of the daemon");
        Self { runtime, client: api::snapshots_client::SnapshotsClient::new(channel) }
    }

    pub(crate) fn prepare(&mut self, New { key, parent, labels }: New<'_>) -> Result<Mount, Box<Status>> {
        let request = api::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.into(),
            parent: parent.into(),
            labels,
        };
        let answer = self.runtime.block_on(self.client.prepare(request))?.into_inner();
        Ok(one(answer.mounts))
    }

    pub(crate) fn view(&mut self, key: &str, parent: &str) -> Result<Mount, Box<Status>> {
        let request = api::ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.into(),
            parent: parent.into(),
            labels: HashMap::new(),
        };
        let answer = self.runtime.block_on(self.client.view(request))?.into_inner();
        Ok(one(answer.mounts))
    }

    pub(crate) fn mounts(&mut self, key: &str) -> Result<Mount, Box<Status>> {
        let request = api::MountsRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        let answer = self.runtime.block_on(self.client.mounts(request))?.into_inner();
        Ok(one(answer.mounts))
    }

    pub(crate) fn commit(&mut self, name: &str, key: &str, labels: HashMap<String, String>) -> Result<(), Box<Status>> {
        let request =
            api::CommitSnapshotRequest { snapshotter: SNAPSHOTTER.into(), name: name.into(), key: key.into(), labels };
        self.runtime.block_on(self.client.commit(request))?;
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &str) -> Result<(), Box<Status>> {
        let request = api::RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        self.runtime.block_on(self.client.remove(request))?;
        Ok(())
    }

    pub(crate) fn cleanup(&mut self) -> Result<(), Box<Status>> {
        let request = api::CleanupRequest { snapshotter: SNAPSHOTTER.into() };
        self.runtime.block_on(self.client.cleanup(request))?;
        Ok(())
    }

    /// The names that a filter finds.
    pub(crate) fn list(&mut self, filter: &str) -> Result<Vec<String>, Box<Status>> {
        let request = api::ListSnapshotsRequest { snapshotter: SNAPSHOTTER.into(), filters: vec![filter.into()] };
        let (runtime, client) = (&self.runtime, &mut self.client);
        let found = runtime.block_on(async {
            let mut stream = client.list(request).await?.into_inner();
            let mut names = Vec::new();
            while let Some(message) = stream.message().await? {
                names.extend(message.info.into_iter().map(|info| info.name));
            }
            Ok::<_, Status>(names)
        })?;
        Ok(found)
    }
}

/// Older clients take exactly one.
fn one(mut mounts: Vec<Mount>) -> Mount {
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    mounts.remove(0)
}
