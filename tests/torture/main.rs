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
#[path = "../stacks/disk.rs"]
mod files;
mod full;
#[path = "../stacks/generate.rs"]
mod generate;
mod images;
mod kills;
#[path = "../mock_support/mod.rs"]
mod mock_support;
#[path = "../stacks/model.rs"]
mod model;
mod player;
mod reader;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod world;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use images::Image;
use player::{Player, Stage};
use support::{Client, Daemon};
use table::Table;
use world::World;

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

/// A stage without snapshots.
fn stage<'a>(images: &'a [Image], what: &'static str, sync: bool, size: usize) -> Stage<'a> {
    Stage {
        images,
        world: Mutex::new(World::default()),
        table: Mutex::new(Table::new(what)),
        ends: AtomicBool::new(false),
        sync,
        size,
    }
}

/// Clients that are connected, for one life of the daemon.
fn players<'a>(stage: &'a Stage<'a>, daemon: &Daemon, random: &mut fastrand::Rng) -> Vec<Player<'a>> {
    let player = |number: u64| Player {
        stage,
        client: Client::connect(&daemon.socket()),
        namespace: if number.is_multiple_of(2) { "default" } else { "k8s.io" },
        random: fastrand::Rng::with_seed(random.u64(..)),
    };
    (0..CLIENTS).map(player).collect()
}

/// Waits for a random number of answers, less than `most`, and for some time of a request: the moment of the end.
fn moment(stage: &Stage<'_>, random: &mut fastrand::Rng, most: u64) {
    let answers = || stage.table.lock().unwrap().answers();
    let (start, wanted) = (Instant::now(), answers() + random.u64(..most));
    // If the clients cannot go on, they say so themselves.
    while answers() < wanted && start.elapsed() < support::LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_micros(random.u64(..10_000)));
}
