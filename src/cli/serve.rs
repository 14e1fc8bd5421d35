//! `serve`: the whole life of the daemon.

use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::global::{EXIT_CONFIG, Global, fail};
use crate::config::Config;
use crate::in_place::Repositories;
use crate::repository::{Limits, Repository};
use crate::snapshotter::Snapshotter;
use crate::state::{self, State};
use crate::telemetry::{self, Level};
use crate::{config, grpc};

/// A reload that takes longer than this is told: reading a file takes milliseconds.
const SLOW_RELOAD: Duration = Duration::from_secs(5);

/// The daemon could not start, or ended with an error.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    State(#[from] state::OpenError),
    #[error(transparent)]
    Socket(#[from] grpc::SocketError),
    #[error(transparent)]
    Server(#[from] grpc::ServerError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Whether trying again cannot help: an operator has to act.
    fn needs_an_operator(&self) -> bool {
        match self {
            Self::State(error) => error.needs_an_operator(),
            Self::Socket(error) => {
                matches!(error, grpc::SocketError::Occupied { .. } | grpc::SocketError::TooLong(_))
            }
            Self::Server(_) | Self::Io(_) => false,
        }
    }
}

pub(super) fn run(global: &Global) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let level = telemetry::start(config.log_level, config.log_format);
    match start(global, &config, &level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(if error.needs_an_operator() { EXIT_CONFIG } else { 1 })
        }
    }
}

fn start(global: &Global, config: &Config, level: &Level) -> Result<(), Error> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // First of all: a client that sees the socket may send a signal at once.
    let (stop, hangup) = runtime.block_on(async { Ok::<_, Error>((stop_signal()?, signal(SignalKind::hangup())?)) })?;
    let state = State::open(&config.root)?;
    let repositories = Repositories::new(configured(config, None)?);
    let (listener, address) = match grpc::inherited()? {
        Some(listener) => {
            let address = listener.local_addr()?.as_pathname().unwrap_or(&config.address).to_owned();
            (listener, address)
        }
        None => (grpc::listen(&config.address)?, config.address.clone()),
    };
    repositories.probe_all();
    let snapshotter = Arc::new(Snapshotter::new(state, repositories, config.timeouts.markers));
    runtime.spawn(reloads(hangup, global.clone(), config.clone(), level.clone(), Arc::downgrade(&snapshotter)));
    let served = runtime.block_on(async {
        tracing::info!(address = %address.display(), "serving");
        Ok(grpc::serve(listener, &address, snapshotter.clone(), stop).await?)
    });
    // Requests that hang in a repository are not waited for.
    runtime.shutdown_background();
    tracing::info!("stopped");
    served
}

/// Reads the configuration again at each SIGHUP, one after the other.
///
/// Weak: the snapshots, and with them the store, are closed at the end of [`start`] and not when this task is dropped.
async fn reloads(mut hangup: Signal, global: Global, running: Config, level: Level, snapshotter: Weak<Snapshotter>) {
    while hangup.recv().await.is_some() {
        let (global, running, level, snapshotter) =
            (global.clone(), running.clone(), level.clone(), snapshotter.clone());
        // It reads a file, which may hang: no connection waits for that.
        let mut reloaded = tokio::task::spawn_blocking(move || {
            if let Some(snapshotter) = snapshotter.upgrade() {
                reload(&global, &running, &level, &snapshotter);
            }
        });
        let ended = match tokio::time::timeout(SLOW_RELOAD, &mut reloaded).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(
                    after = ?SLOW_RELOAD,
                    "the configuration file cannot be read yet; the old configuration stays in effect until it can"
                );
                reloaded.await
            }
        };
        if let Err(error) = ended {
            tracing::error!(%error, "reloading the configuration panicked; please report this. The old one stays in effect");
        }
    }
}

/// Reads the configuration again; a bad one changes nothing.
fn reload(global: &Global, running: &Config, level: &Level, snapshotter: &Snapshotter) {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return tracing::error!(%error, "cannot reload the configuration; the old one stays in effect"),
    };
    let old = snapshotter.repositories();
    let repositories = match configured(&config, Some(&old)) {
        Ok(repositories) => old.change(repositories),
        Err(error) => return tracing::error!(%error, "cannot reload the configuration; the old one stays in effect"),
    };
    let fixed =
        |config: &Config| (config.address.clone(), config.root.clone(), config.log_format, config.timeouts.markers);
    if fixed(&config) != fixed(running) {
        tracing::warn!("address, root, log-format and timeouts.markers take effect at the next start only");
    }
    level.set(config.log_level);
    repositories.probe_all();
    snapshotter.set_repositories(repositories);
    tracing::info!("the configuration was reloaded");
}

/// The repositories of a configuration; those that do not change are taken over.
fn configured(config: &Config, running: Option<&Repositories>) -> std::io::Result<Vec<Arc<Repository>>> {
    let limits = Limits::from(config.timeouts);
    let repository = |entry: &config::Repository| {
        let config::Repository { name, path, kind, verify } = entry;
        let same = |repository: &&Arc<Repository>| repository.is(name, path, *kind, *verify, limits);
        if let Some(known) = running.and_then(|running| running.repositories().find(same)) {
            return Ok(known.clone());
        }
        tracing::info!(repository = name, path = %path.display(), ?kind, ?verify, "configured");
        Repository::new(name.clone(), path.clone(), *kind, *verify, limits).map(Arc::new)
    };
    config.repositories.iter().map(repository).collect()
}

/// Completes at the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    })
}
