//! The gRPC server on its unix socket.

mod incoming;
mod socket;
mod systemd;

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_snapshots::tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

pub use socket::Error as SocketError;
pub use systemd::inherited;

use crate::service::Service;
use crate::snapshotter::Snapshotter;

/// containerd's own limit for messages; tonic's default is 4 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests that are running at a stop are given this long. A Prepare that looks for markers ends in time; one that waits
/// for a slow automount is cut off, and containerd asks again.
const DRAIN: Duration = Duration::from_secs(15);
/// How long the daemon waits for its own answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);

/// Listens on the path; see [`SocketError`] for what is refused.
pub fn listen(address: &Path) -> Result<UnixListener, SocketError> {
    socket::listen(address)
}

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
    let serving = server.serve_with_incoming_shutdown(incoming::Incoming::new(listener), stop);
    tokio::pin!(serving);
    let life = async {
        // Ready is what answers; a client that connected before is answered as well.
        if let Err(why) = health(address, HEALTH_LIMIT).await {
            tracing::warn!(why, "the daemon does not answer itself");
        }
        systemd::ready();
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
            tracing::warn!(limit = ?DRAIN, "some requests did not end in time");
            Ok(())
        }
    }
}

/// Asks the daemon on this socket whether it serves, and waits for the answer until `limit`; the error says why not.
pub async fn health(address: &Path, limit: Duration) -> Result<(), String> {
    let asked = tokio::time::timeout(limit, async {
        let channel = connect(address).await.map_err(|e| format!("nobody answers: {e}"))?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = HealthClient::new(channel).check(request).await;
        let status = answer.map_err(|e| format!("it answers with an error: {}", e.message()))?.into_inner().status();
        match status {
            tonic_health::pb::health_check_response::ServingStatus::Serving => Ok(()),
            other => Err(format!("it does not serve now: {}", other.as_str_name())),
        }
    });
    asked.await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// A connection to the daemon on this socket.
pub async fn connect(address: &Path) -> Result<Channel, containerd_snapshots::tonic::transport::Error> {
    let path = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| tokio::net::UnixStream::connect(path.clone()));
    // The name is not looked up: the connector knows where to go.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}
