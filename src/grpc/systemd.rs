//! The protocol between systemd and the daemon. Without systemd only the self-check at the start does anything.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::health;
use crate::snapshotter::Snapshotter;

/// How long the daemon waits for its own answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// How long it waits before it asks itself again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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

/// Says that requests are answered, once the daemon has answered one of its own: containerd is started after that.
///
/// systemd gives up after `TimeoutStartSec=` if it never does.
pub(super) async fn ready(address: &Path) {
    let mut logged = None;
    while let Err(why) = health::check(address, HEALTH_LIMIT).await {
        if logged.as_ref() != Some(&why) {
            tracing::error!(
                why,
                address = %address.display(),
                "the daemon does not answer itself, so it is not ready; it asks again each second"
            );
            logged = Some(why);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    if logged.is_some() {
        tracing::info!("the daemon answers itself now");
    }
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
            Ok(Err(why)) => {
                tracing::error!(why, "the daemon does not work, so systemd gets no watchdog ping and will restart it");
            }
            Err(_) => tracing::error!(limit = ?interval, "the daemon did not answer itself in time"),
        }
    }
}

async fn check(address: &Path, snapshotter: Arc<Snapshotter>) -> Result<(), String> {
    health::check(address, HEALTH_LIMIT).await?;
    let read = tokio::task::spawn_blocking(move || snapshotter.check()).await;
    read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
