//! The client of the health service: whether a daemon on a socket serves.

use std::path::Path;
use std::time::Duration;

use containerd_snapshots::tonic::transport::{Channel, Endpoint, Error, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Asks the daemon on this socket whether it serves, and waits for the answer until `limit`; the error says why not.
pub async fn check(address: &Path, limit: Duration) -> Result<(), String> {
    let asked = tokio::time::timeout(limit, async {
        let channel = connect(address).await.map_err(|e| format!("nobody answers: {e}"))?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = HealthClient::new(channel).check(request).await;
        let status = answer.map_err(|e| format!("it answers with an error: {}", e.message()))?.into_inner().status();
        match status {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("it does not serve now: {}", other.as_str_name())),
        }
    });
    asked.await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// A connection to the daemon on this socket.
pub async fn connect(address: &Path) -> Result<Channel, Error> {
    let path = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| tokio::net::UnixStream::connect(path.clone()));
    // The name is not looked up: the connector knows where to go.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}
