//! The daemon is killed with SIGKILL: what it has given to the kernel stays, what it was about to do does not happen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::check::check;
use crate::images::images;
use crate::support::{self, Daemon, Kind, Site};
use crate::world::Pending;
use crate::{IMAGES, moment, players, seed, setting, stage, with_own_mounts};

/// Some seconds.
const KILLS: u64 = 150;
/// About as many snapshots as there are.
const SIZE: usize = 60;

#[test]
fn what_was_acknowledged_survives_kills() {
    if !support::is_root() {
        return;
    }
    let (kills, seed) = (setting("KILLS").unwrap_or(KILLS), seed());
    println!("KILLS={kills} SEED={seed}");
    with_own_mounts(|| run(kills, seed));
}

fn run(kills: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let site = Site::new(Kind::Directory).expect("a directory");
    let images = images(IMAGES, seed, &site.backing());
    let stage = stage(&images, "kills", false, SIZE);
    let state = tempfile::tempdir().unwrap();
    // A kill loses nothing that the kernel has: the disk does not matter, so memory is as good.
    mount(Some("tmpfs"), state.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("a tmpfs");
    let mut daemon = Daemon::stopped_with_root(&site.settings(), &state.path().join("root"));
    daemon.restart();
    for kill in 1..=kills {
        let players = players(&stage, &daemon, &mut random);
        stage.ends.store(false, Ordering::SeqCst);
        let pending: Vec<Pending> = std::thread::scope(|scope| {
            let playing: Vec<_> = players.into_iter().map(|player| scope.spawn(|| player.play())).collect();
            moment(&stage, &mut random, 20);
            stage.ends.store(true, Ordering::SeqCst);
            daemon.stop(Signal::SIGKILL);
            playing.into_iter().map(|thread| thread.join().expect("a player")).collect()
        });
        // Once in a while it is killed again while it starts.
        while random.u8(..6) == 0 {
            daemon.spawn();
            std::thread::sleep(Duration::from_micros(random.u64(..20_000)));
            daemon.stop(Signal::SIGKILL);
            stage.table.lock().unwrap().count("kills of a daemon that starts", 1);
        }
        daemon.restart();
        let share = if kill % 50 == 0 || kill == kills { 100 } else { 5 };
        check(&stage, &daemon, &pending, &mut random, share, &format!("SEED={seed}, kill {kill}"));
        stage.table.lock().unwrap().count("kills", 1);
    }
    println!("{}", stage.table.lock().unwrap());
    drop(daemon);
    nix::mount::umount(state.path()).expect("nobody uses the state any more");
}
