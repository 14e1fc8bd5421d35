//! `serve`: the whole life of the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_CONFIG, Global, fail};
use crate::config::Config;
use crate::logging::Level;
use crate::repository::Repository;
use crate::snapshotter::{Sites, Snapshotter};
use crate::store::{self, COPY, OpenError, Store, way_back};
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
        "{store} is missing, but there are directories of snapshots in {root}/snapshots, of which nothing is known without it; nothing was changed. {} {}", COPY, way_back(.root)
    )]
    StoreLost { store: PathBuf, root: PathBuf },
    #[error(
        "{store} knows nothing of the snapshot in {directory}, which was made after it: it is an older copy, and with it everything newer would be deleted; no snapshot was changed. Put the newest file back in its place. If it is lost: {}", way_back(.root)
    )]
    StoreOld { store: PathBuf, directory: PathBuf, root: PathBuf },
    #[error(transparent)]
    Query(#[from] store::Error),
}

pub(super) fn run(global: &Global) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let level = logging::start(config.log_level, config.log_format);
    match start(global, &config, &level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(if needs_an_operator(&error) { EXIT_CONFIG } else { 1 })
        }
    }
}

/// Whether trying again cannot help.
fn needs_an_operator(error: &Error) -> bool {
    matches!(
        error,
        Error::Tree(tree::Error::Open { .. })
            | Error::Store(OpenError::Format { .. } | OpenError::Unreadable { .. })
            | Error::StoreLost { .. }
            | Error::StoreOld { .. }
            | Error::Socket(server::SocketError::Occupied { .. } | server::SocketError::TooLong(_))
    )
}

fn start(global: &Global, config: &Config, level: &Level) -> Result<(), Error> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // First of all: whoever sees the socket may ask for a stop already.
    let (stop, mut hangup) =
        runtime.block_on(async { Ok::<_, Error>((stop_signal()?, signal(SignalKind::hangup())?)) })?;
    Tree::prepare_root(&config.root)?;
    let store_path = Store::path(&config.root);
    if !store_path.try_exists()? && !Tree::is_empty(&config.root)? {
        return Err(Error::StoreLost { store: store_path, root: config.root.clone() });
    }
    // The store is locked first: what follows is safe from a second process.
    let store = Store::open(&config.root)?;
    let tree = Tree::open(&config.root)?;
    refuse_an_older_copy(&store, &tree)?;
    let sites = Sites::new(repositories(config, None)?);
    let (listener, address) = match server::inherited()? {
        Some(listener) => {
            let address = listener.local_addr()?.as_pathname().unwrap_or(&config.address).to_owned();
            (listener, address)
        }
        None => (server::listen(&config.address)?, config.address.clone()),
    };
    sites.probe_all();
    let snapshotter = Arc::new(Snapshotter::new(store, tree, sites, config.timeouts.markers));
    let served = runtime.block_on(async {
        tracing::info!(address = %address.display(), "serving");
        let serving = server::serve(listener, &address, snapshotter.clone(), stop);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                served = &mut serving => return Ok(served?),
                _ = hangup.recv() => reload(global, config, level, &snapshotter),
            }
        }
    });
    // Requests that hang in a repository are not waited for.
    runtime.shutdown_background();
    tracing::info!("stopped");
    served
}

/// A clean-up with an older copy of the store would delete what containers have written since. Ids are reserved in the
/// store before they are used, and each start reserves new ones: what was made after a copy of a stopped daemon's store
/// has an id that the copy has not reserved. Of a copy that was made while it ran the last few ids cannot be told.
fn refuse_an_older_copy(store: &Store, tree: &Tree) -> Result<(), Error> {
    let reserved = store.skip_ids();
    match tree.ids()?.into_iter().max() {
        Some(newest) if newest >= reserved => Err(Error::StoreOld {
            store: Store::path(tree.root()),
            directory: tree.snapshots().join(newest.to_string()),
            root: tree.root().to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Reads the configuration again; a bad one changes nothing.
fn reload(global: &Global, running: &Config, level: &Level, snapshotter: &Snapshotter) {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return tracing::error!(%error, "the configuration is not reloaded, the old one stays in effect"),
    };
    let old = snapshotter.sites();
    let sites = match repositories(&config, Some(&old)) {
        Ok(repositories) => old.change(repositories),
        Err(error) => return tracing::error!(%error, "the configuration is not reloaded, the old one stays in effect"),
    };
    let fixed =
        |config: &Config| (config.address.clone(), config.root.clone(), config.log_format, config.timeouts.markers);
    if fixed(&config) != fixed(running) {
        tracing::warn!("address, root, log-format and timeouts.markers change at the next start only");
    }
    level.set(config.log_level);
    sites.probe_all();
    snapshotter.set_sites(sites);
    tracing::info!("the configuration was reloaded");
}

/// The repositories of a configuration; those that do not change are taken over.
fn repositories(config: &Config, running: Option<&Sites>) -> std::io::Result<Vec<Arc<Repository>>> {
    let limits = config.timeouts.limits();
    let repository = |entry: &crate::config::Repository| {
        let crate::config::Repository { name, path, kind, verify } = entry;
        let same = |repository: &&Arc<Repository>| repository.is(name, path, *kind, *verify, limits);
        if let Some(known) = running.and_then(|sites| sites.repositories().find(same)) {
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
