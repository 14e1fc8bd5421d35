//! Random requests of several clients in two namespaces, and the daemon's end at any moment.
//!
//! A model keeps what was acknowledged. After each end the daemon is started again, and has to know all of that and
//! nothing else; of a request that was under way either all or nothing. Snapshots are really mounted and compared file by
//! file, and also as containerd itself reads the lower directories. A clean-up leaves no directory without a snapshot.
//!
//! ```text
//! make torture KILLS=10000 CUTS=1000 SEED=7
//! ```

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

mod check;
mod cuts;
mod damage;
mod disk;
mod failing;
mod failing_unpack;
mod full;
mod images;
mod kills;
mod model;
mod random_client;
mod reader;
mod table;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use images::Image;
use model::Model;
use random_client::{RandomClient, Run};
use table::Table;
use testkit::{Client, Daemon};

const CLIENTS: u64 = 4;
/// Images to choose from.
const IMAGES: u64 = 12;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// The seed of a run, which is printed: `SEED`, or one that is different each time.
fn seed() -> u64 {
    setting("SEED").unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Runs with mounts that nobody else sees, and that are gone with the test whatever happens to it.
fn with_own_mounts<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            run()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A run without snapshots.
fn new_run<'a>(images: &'a [Image], what: &'static str, sync: bool, size: usize) -> Run<'a> {
    Run {
        images,
        model: Mutex::new(Model::default()),
        table: Mutex::new(Table::new(what)),
        ends: AtomicBool::new(false),
        sync,
        size,
    }
}

/// Clients that are connected, for one life of the daemon.
fn clients<'a>(run: &'a Run<'a>, daemon: &Daemon, random: &mut fastrand::Rng) -> Vec<RandomClient<'a>> {
    let client = |number: u64| RandomClient {
        run,
        client: Client::connect(&daemon.socket()),
        namespace: if number.is_multiple_of(2) { "default" } else { "k8s.io" },
        random: fastrand::Rng::with_seed(random.u64(..)),
    };
    (0..CLIENTS).map(client).collect()
}

/// Waits for a random number of answers, less than `most`, and for some time of a request: the moment of the end.
fn moment(run: &Run<'_>, random: &mut fastrand::Rng, most: u64) {
    let answers = || run.table.lock().unwrap().answers();
    let (start, wanted) = (Instant::now(), answers() + random.u64(..most));
    // If the clients cannot go on, they say so themselves.
    while answers() < wanted && start.elapsed() < testkit::LIMIT {
        testkit::pause(Duration::from_millis(1));
    }
    testkit::pause(Duration::from_micros(random.u64(..10_000)));
}
