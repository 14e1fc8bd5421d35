//! A client of the daemon: one method for each call.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_snapshots::api::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_snapshots::api::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
    ViewSnapshotRequest,
};
use containerd_snapshots::api::types::Mount;
use containerd_snapshots::tonic::transport::{Channel, Endpoint};
use containerd_snapshots::tonic::{Code, Status};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

pub use containerd_snapshots::api::snapshots::v1::Info;

/// Labels of a snapshot.
pub type Labels = HashMap<String, String>;

/// Labels from pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The proxy plugin's name, which containerd sends along.
const SNAPSHOTTER: &str = "cvmfs-snapshotter";
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A connection, with a thread that keeps it alive as containerd does.
pub struct Client {
    runtime: Arc<Runtime>,
    client: SnapshotsClient<Channel>,
    /// Tells it to go away.
    leave: Option<Arc<Notify>>,
}

impl Client {
    /// Connects to the socket of a daemon.
    pub fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = runtime.block_on(connect(socket)).expect("the socket of the daemon");
        let client =
            SnapshotsClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { runtime: Arc::new(runtime), client, leave: None }
    }

    /// The same client, but one that goes away when it is told so: then the call that is under way is cancelled.
    pub fn until(&self, leave: &Arc<Notify>) -> Self {
        Self { runtime: self.runtime.clone(), client: self.client.clone(), leave: Some(leave.clone()) }
    }

    fn run<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.runtime.block_on(async {
            let Some(leave) = &self.leave else { return call.await };
            tokio::select! {
                answer = call => answer,
                () = leave.notified() => Err(Status::cancelled("the client went away")),
            }
        })
    }

    /// Prepares an active snapshot.
    pub fn prepare(&self, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>, Status> {
        let request = prepare_request(key, parent, labels);
        Ok(self.run(self.client.clone().prepare(request))?.into_inner().mounts)
    }

    /// Begins a Prepare, and goes away when `wait` returns, as a client that is cancelled does. The caller sees to it that
    /// the request is not answered by then.
    pub fn prepare_and_leave(&self, key: &str, parent: &str, labels: &Labels, wait: impl FnOnce()) {
        let leave = Arc::new(Notify::new());
        let answer = std::thread::scope(|scope| {
            let call = scope.spawn(|| self.until(&leave).prepare(key, parent, labels));
            wait();
            leave.notify_one();
            call.join().unwrap()
        });
        assert_eq!(answer.unwrap_err().code(), Code::Cancelled, "it was answered before the client left");
    }

    /// Makes a view.
    pub fn view(&self, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>, Status> {
        let request = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.into(),
            parent: parent.into(),
            labels: labels.clone(),
        };
        Ok(self.run(self.client.clone().view(request))?.into_inner().mounts)
    }

    /// The mounts of an active snapshot or a view.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = MountsRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        Ok(self.run(self.client.clone().mounts(request))?.into_inner().mounts)
    }

    /// Commits an active snapshot.
    pub fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            name: name.into(),
            key: key.into(),
            labels: labels.clone(),
        };
        self.run(self.client.clone().commit(request)).map(drop)
    }

    /// Removes a snapshot.
    pub fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        self.run(self.client.clone().remove(request)).map(drop)
    }

    /// What is known of a snapshot.
    pub fn stat(&self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        Ok(self.run(self.client.clone().stat(request))?.into_inner().info.unwrap())
    }

    /// An update as containerd's metadata store sends it: a kind that may be wrong, times of the year 1, a mask.
    pub fn update(&self, name: &str, labels: &Labels, mask: &[&str]) -> Result<Info, Status> {
        let mut info = Info {
            name: name.into(),
            parent: "bogus".into(),
            kind: 3,
            labels: labels.clone(),
            created_at: Some(Default::default()),
            updated_at: Some(Default::default()),
        };
        for time in [&mut info.created_at, &mut info.updated_at] {
            time.as_mut().unwrap().seconds = -62_135_596_800;
        }
        let mut request = UpdateSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            info: Some(info),
            update_mask: Some(Default::default()),
        };
        request.update_mask.as_mut().unwrap().paths = mask.iter().map(|path| (*path).to_owned()).collect();
        Ok(self.run(self.client.clone().update(request))?.into_inner().info.unwrap())
    }

    /// The messages of a listing.
    pub fn list_messages(&self, filters: &[&str]) -> Result<Vec<ListSnapshotsResponse>, Status> {
        let request = ListSnapshotsRequest {
            snapshotter: SNAPSHOTTER.into(),
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let mut client = self.client.clone();
        self.run(async {
            let mut stream = client.list(request).await?.into_inner();
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await? {
                messages.push(message);
            }
            Ok(messages)
        })
    }

    /// What a listing has; all without a filter.
    pub fn list(&self, filters: &[&str]) -> Result<Vec<Info>, Status> {
        Ok(self.list_messages(filters)?.into_iter().flat_map(|message| message.info).collect())
    }

    /// The names of all snapshots.
    pub fn keys(&self) -> Vec<String> {
        self.list(&[]).unwrap().into_iter().map(|info| info.name).collect()
    }

    /// Bytes and inodes.
    pub fn usage(&self, key: &str) -> Result<(i64, i64), Status> {
        let request = UsageRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        let usage = self.run(self.client.clone().usage(request))?.into_inner();
        Ok((usage.size, usage.inodes))
    }

    /// Runs a clean-up.
    pub fn cleanup(&self) -> Result<(), Status> {
        let request = CleanupRequest { snapshotter: SNAPSHOTTER.into() };
        self.run(self.client.clone().cleanup(request)).map(drop)
    }

    /// Makes an empty committed snapshot.
    pub fn committed(&self, name: &str, parent: &str) {
        let key = format!("{name} active");
        self.prepare(&key, parent, &Labels::new()).unwrap();
        self.commit(name, &key, &Labels::new()).unwrap();
    }
}

async fn connect(socket: &Path) -> Result<Channel, containerd_snapshots::tonic::transport::Error> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| tokio::net::UnixStream::connect(path.clone()));
    // The name is not looked up: the connector knows where to go.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

fn prepare_request(key: &str, parent: &str, labels: &Labels) -> PrepareSnapshotRequest {
    PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        parent: parent.into(),
        labels: labels.clone(),
    }
}

/// When a snapshot was created and updated.
pub fn times(info: &Info) -> (SystemTime, SystemTime) {
    let time = |stamp: &Option<_>| SystemTime::try_from(Option::clone(stamp).unwrap()).unwrap();
    (time(&info.created_at), time(&info.updated_at))
}
