//! The daemon is killed with SIGKILL: what it has given to the kernel stays, what it was about to do does not happen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::check::{OF_LAYER, check, others};
use crate::images::images;
use crate::model::{Pending, id_in_place};
use crate::{IMAGES, clients, moment, new_run, seed, setting, with_own_mounts};
use testkit::{Chain, Daemon, Kind, Labels, Layer, Namespace, Site, Style};

/// Some seconds.
const KILLS: u64 = 300;
/// About as many snapshots as there are.
const SIZE: usize = 60;

#[test]
fn what_was_acknowledged_survives_kills() {
    if !testkit::is_root() {
        return;
    }
    let (kills, seed) = (setting("KILLS").unwrap_or(KILLS), seed());
    println!("KILLS={kills} SEED={seed}");
    with_own_mounts(|| run(kills, seed));
}

fn run(kills: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let site = Site::new(Kind::Directory).expect("a directory");
    let images = images(IMAGES, seed, site.backing());
    let run = new_run(&images, "kills", false, SIZE);
    let state = tempfile::tempdir().unwrap();
    // A kill loses nothing that the kernel has: the disk does not matter, so memory is as good.
    mount(Some("tmpfs"), state.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("a tmpfs");
    let mut daemon = Daemon::stopped_with_root(&site.settings(), &state.path().join("root"));
    daemon.restart();
    for kill in 1..=kills {
        let clients = clients(&run, &daemon, &mut random);
        run.ends.store(false, Ordering::SeqCst);
        let pending: Vec<Pending> = std::thread::scope(|scope| {
            let working: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| client.work())).collect();
            moment(&run, &mut random, 20);
            run.ends.store(true, Ordering::SeqCst);
            daemon.stop(Signal::SIGKILL);
            working.into_iter().map(|thread| thread.join().expect("a client")).collect()
        });
        // Once in a while it is killed again while it starts.
        while random.u8(..6) == 0 {
            daemon.spawn();
            testkit::pause(Duration::from_micros(random.u64(..20_000)));
            daemon.stop(Signal::SIGKILL);
            run.table.lock().unwrap().count("kills of a daemon that starts", 1);
        }
        daemon.restart();
        let share = if kill % 50 == 0 || kill == kills { 100 } else { 5 };
        check(&run, &daemon, &pending, &mut random, share, &format!("SEED={seed}, kill {kill}"));
        run.table.lock().unwrap().count("kills", 1);
    }
    println!("{}", run.table.lock().unwrap());
    drop(daemon);
    nix::mount::umount(state.path()).expect("nobody uses the state any more");
}

#[test]
fn a_kill_while_a_cover_is_made_leaves_nothing() {
    /// So many that it takes a while.
    const DELETIONS: usize = 4000;
    const ATTEMPTS: usize = 20;
    let Some(site) = Site::new(Kind::Directory) else { return };
    let mut layer = Layer::new("deletions", &[]);
    layer.files = (0..DELETIONS).map(|number| (format!(".wh.{number}"), String::new())).collect();
    site.publish(&layer);
    let mut daemon = Daemon::start(&site.settings());
    let pulled = Namespace::new(&daemon.client(), "default", Style::New).pull(&Chain::new("deletions", &[&layer]));
    let name = &pulled[0].name;
    let directory = daemon.snapshots().join(id_in_place(name).expect("in place").to_string());
    let left = || others(&directory, OF_LAYER);
    let mut kills = 0;
    for attempt in 0..ATTEMPTS {
        std::fs::remove_dir_all(directory.join("c")).unwrap();
        let (client, key) = (daemon.client(), format!("container {attempt}"));
        let made = std::thread::scope(|scope| {
            let prepare = scope.spawn(|| client.prepare(&key, name, &Labels::new()));
            while left().is_empty() && !prepare.is_finished() {}
            daemon.stop(Signal::SIGKILL);
            prepare.join().expect("a client").is_ok()
        });
        daemon.restart();
        if made {
            continue;
        }
        let client = daemon.client();
        client.cleanup().unwrap();
        assert_eq!(left(), [""; 0]);
        client.view(&key, name, &Labels::new()).unwrap();
        assert_eq!((left(), directory.join("c").is_dir()), (Vec::new(), true));
        kills += 1;
        if kills == 2 {
            return;
        }
    }
    panic!("it is made too fast");
}
