//! `serve`: the whole life of the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{EXIT_CONFIG, Global, fail};
use crate::config::Config;
use crate::repository::Repository;
use crate::snapshotter::{Sites, Snapshotter};
use crate::store::{OpenError, Store};
use crate::tree::{self, Tree};
use crate::{logging, server};

/// The daemon could not start, or ended with an error.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Tree(#[from] tree::Error),
    #[error(transparent)]
    Socket(#[from] server::SocketError),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    #[error(
        "{store} is missing, but there are directories of snapshots in {root}/snapshots: without the store nothing is known of them. Restore the file from a backup; or remove all images and containers of this snapshotter from containerd, move {root} away and start again"
    )]
    StoreLost { store: std::path::PathBuf, root: std::path::PathBuf },
}

pub(super) fn run(global: &Global) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    logging::start(config.log_level, config.log_format);
    match start(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            let is_config = matches!(
                error,
                Error::Tree(tree::Error::Open { .. })
                    | Error::StoreLost { .. }
                    | Error::Socket(server::SocketError::Occupied { .. } | server::SocketError::TooLong(_))
            );
            ExitCode::from(if is_config { EXIT_CONFIG } else { 1 })
        }
    }
}

fn start(config: &Config) -> Result<(), Error> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %config.address.display(),
        root = %config.root.display(),
        "starting"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // First of all: whoever sees the socket may ask for a stop already.
    let stop = runtime.block_on(async { stop_signal() })?;
    Tree::prepare_root(&config.root)?;
    let store_path = Store::path(&config.root);
    if !store_path.exists() && !Tree::is_empty(&config.root)? {
        return Err(Error::StoreLost { store: store_path, root: config.root.clone() });
    }
    // The store is locked first: what follows is safe from a second process.
    let store = Store::open(&config.root)?;
    let tree = Tree::open(&config.root)?;
    let sites = sites(config)?;
    let listener = server::listen(&config.address)?;
    sites.probe_all();
    let snapshotter = Arc::new(Snapshotter::new(store, tree, sites, config.timeouts.markers));
    let served = runtime.block_on(async {
        tracing::info!(address = %config.address.display(), "serving");
        Ok(server::serve(listener, snapshotter, stop).await?)
    });
    // Requests that hang in a repository are not waited for.
    runtime.shutdown_background();
    tracing::info!("stopped");
    served
}

fn sites(config: &Config) -> std::io::Result<Sites> {
    let limits = config.timeouts.limits();
    let repository = |entry: &crate::config::Repository| {
        let crate::config::Repository { name, path, kind, verify } = entry;
        tracing::info!(repository = name, path = %path.display(), ?kind, ?verify, "configured");
        Repository::new(name.clone(), path.clone(), *kind, *verify, limits).map(Arc::new)
    };
    Ok(Sites::new(config.repositories.iter().map(repository).collect::<std::io::Result<_>>()?))
}

/// Completes at the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate: Signal = signal(SignalKind::terminate())?;
    let mut interrupt: Signal = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    })
}
