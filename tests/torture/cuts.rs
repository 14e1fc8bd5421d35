//! The power is cut: the daemon is gone, and so is everything that was not flushed to the disk, or a random part of it.
//!
//! The state lies on a real file system on a disk of the tests' own; what is left is mounted as the next start of a machine
//! would.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::check::check;
use crate::disk::{Disk, Kind};
use crate::images::images;
use crate::model::Pending;
use crate::random_client::Run;
use crate::table::Table;
use crate::{IMAGES, clients, moment, new_run, seed, setting, with_own_mounts};
use testkit::{Daemon, Site, has_fuse, skip};

/// On each file system; some seconds.
const CUTS: u64 = 10;
/// So many begin with an empty disk.
const OF_ONE_DISK: u64 = 25;
/// About as many snapshots as there are.
const SIZE: usize = 30;

fn cut_on(kind: Kind) {
    if !has_fuse() {
        return;
    }
    if let Some(why) = kind.missing() {
        return skip::skip(&why);
    }
    let (cuts, seed) = (setting("CUTS").unwrap_or(CUTS), seed());
    println!("CUTS={cuts} SEED={seed} {kind}");
    with_own_mounts(|| {
        let site = Site::new(testkit::Kind::Directory).expect("a directory");
        let images = images(IMAGES, seed, site.backing());
        let mut table = Table::new("cuts");
        let mut done = 0;
        while done < cuts {
            let count = OF_ONE_DISK.min(cuts - done);
            let mut run = new_run(&images, "cuts", true, SIZE);
            run.table = std::sync::Mutex::new(table);
            one_disk(&run, &site, kind, seed + done, count);
            table = run.table.into_inner().unwrap();
            done += count;
        }
        println!("{table}");
    });
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_ext4() {
    cut_on(Kind::Ext4);
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_xfs() {
    cut_on(Kind::Xfs);
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_btrfs() {
    cut_on(Kind::Btrfs);
}

/// The life of one disk, from an empty file system.
fn one_disk(run: &Run<'_>, site: &Site, kind: Kind, seed: u64, cuts: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = Disk::new(kind);
    // Dropped first.
    let mut daemon = Daemon::stopped_with_root(&site.settings(), &disk.path().join("root"));
    for cut in 1..=cuts {
        run.ends.store(false, Ordering::SeqCst);
        let pending = if random.u8(..8) == 0 {
            // Before it serves, if the moment comes early enough.
            if daemon.is_running() {
                daemon.stop(Signal::SIGTERM);
            }
            daemon.spawn();
            testkit::pause(Duration::from_micros(random.u64(..30_000)));
            cut_power(run, &mut disk, &mut daemon, &mut random);
            Vec::new()
        } else {
            if !daemon.is_running() {
                daemon.restart();
            }
            let clients = clients(run, &daemon, &mut random);
            std::thread::scope(|scope| {
                let working: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| client.work())).collect();
                moment(run, &mut random, 30);
                cut_power(run, &mut disk, &mut daemon, &mut random);
                working.into_iter().map(|thread| thread.join().expect("a client")).collect::<Vec<Pending>>()
            })
        };
        disk.remount();
        daemon.restart();
        let share = if cut == cuts { 100 } else { 40 };
        check(run, &daemon, &pending, &mut random, share, &format!("{kind} SEED={seed}, cut {cut}"));
    }
}

fn cut_power(run: &Run<'_>, disk: &mut Disk, daemon: &mut Daemon, random: &mut fastrand::Rng) {
    run.ends.store(true, Ordering::SeqCst);
    // Nothing is acknowledged any more that needs the disk; then the process goes, and only then the disk lets go whoever
    // waits for it.
    disk.freeze(random.bool());
    daemon.signal(Signal::SIGKILL);
    let survivors = disk.cut(random.u64(..));
    daemon.wait();
    let mut table = run.table.lock().unwrap();
    table.count("cuts", 1);
    table.count("blocks written and not flushed", survivors.written);
    table.count("of them on the disk all the same", survivors.kept);
    table.count("of those in part", survivors.torn);
}
