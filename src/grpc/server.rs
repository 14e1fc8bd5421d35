//! The gRPC server on its unix socket.

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_snapshots::tonic::transport::Server;
use tonic_health::ServingStatus;

use super::incoming::Incoming;
use super::service::Service;
use super::systemd;
use crate::snapshotter::Snapshotter;

/// containerd's own limit for messages; tonic's default is 4 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests that are running at a stop are given this long. A Prepare that looks for markers ends in time; one that waits
/// for a slow automount is cut off, and containerd asks again.
const DRAIN: Duration = Duration::from_secs(15);

/// The server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener cannot be used.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
    /// The server ended by itself.
    #[error("the server ended: {0}")]
    Transport(#[from] containerd_snapshots::tonic::transport::Error),
}

/// Serves until `stop` completes, and then until the requests that are running have ended, within a limit.
///
/// `address`: the path of the listener, at which the daemon asks itself whether it works.
pub async fn serve(
    listener: UnixListener,
    address: &Path,
    snapshotter: Arc<Snapshotter>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (mut reporter, health_service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let snapshots = containerd_snapshots::server(Arc::new(Service::new(snapshotter.clone())))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let stop = async move {
        stop.await;
        systemd::stopping();
        reporter.set_service_status("", ServingStatus::NotServing).await;
        // The receiver is gone only if the server is, too.
        let _ = stopping.send(());
    };
    let server = Server::builder().add_service(health_service).add_service(snapshots);
    let serving = server.serve_with_incoming_shutdown(Incoming::new(listener), stop);
    tokio::pin!(serving);
    let life = async {
        // A client that connected before is answered as well.
        systemd::ready(address).await;
        systemd::watchdog(address, &snapshotter).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        _ = stopped => {}
        () = life => {}
    }
    match tokio::time::timeout(DRAIN, serving).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!(limit = ?DRAIN, "some requests did not end in time; containerd repeats them");
            Ok(())
        }
    }
}
