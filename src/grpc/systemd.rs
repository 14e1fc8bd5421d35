//! What systemd and the daemon tell each other. Without systemd all of it does nothing.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::snapshotter::Snapshotter;

/// The listener of the socket unit, if it is the socket unit that started the daemon.
pub fn inherited() -> io::Result<Option<UnixListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() == 0 {
        return Ok(None);
    }
    let listener = sockets.take_unix_listener(0)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

/// Requests are answered from now on.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// No new request is accepted from now on.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the daemon is alive, as long as it is: a request over the socket is answered, and the store can be read.
///
/// systemd restarts it when it hears nothing within the time of `WatchdogSec=`. Returns only if it does not want to.
pub(super) async fn watchdog(address: &Path, snapshotter: &Arc<Snapshotter>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let interval = limit / 2;
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(interval, check(address, snapshotter.clone())).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(why)) => tracing::error!(why, "the daemon does not work, systemd is not told that it does"),
            Err(_) => tracing::error!(limit = ?interval, "the daemon did not answer itself in time"),
        }
    }
}

async fn check(address: &Path, snapshotter: Arc<Snapshotter>) -> Result<(), String> {
    super::health(address, super::HEALTH_LIMIT).await?;
    let read = tokio::task::spawn_blocking(move || snapshotter.check()).await;
    read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told about the state of the daemon");
    }
}
