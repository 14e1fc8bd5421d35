//! The states of a repository, told apart as the daemon does.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

use crate::mock_support::{Options, available};
use crate::{Site, caller, counters, digest, ends_within, errno, layer, names};

#[test]
fn a_hung_client_answers_from_the_cache_only() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let layer = site.layer('a');
    let known = layer.join("etc/a");
    known.symlink_metadata().unwrap();
    for round in 0..2 {
        site.mock.hang();
        known.symlink_metadata().unwrap();
        let mut callers: Vec<_> = (0..3).map(|_| caller("ls", &layer)).collect();
        callers.push(caller("cat", &site.layer('b').join("etc/both")));
        callers.push(caller("stat", &site.layer('b').join(format!("etc/unknown{round}"))));
        let mut first = callers.remove(0);
        assert!(!ends_within(&mut first, Duration::from_millis(300)));
        first.kill().unwrap();
        assert!(ends_within(&mut first, Duration::from_secs(5)), "a caller cannot be killed");
        site.mock.stats();
        known.symlink_metadata().unwrap();
        assert!(callers.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
        site.mock.unhang();
        assert!(callers.iter_mut().all(|child| ends_within(child, Duration::from_secs(5))));
        assert_eq!(fs::read(&known).unwrap(), b"a");
    }
}

#[test]
fn killing_a_hung_client_frees_its_callers() {
    if !available() {
        return;
    }
    let mut site = Site::new(Options::default());
    site.mock.hang();
    let mut callers: Vec<_> = ["ls", "stat"].iter().map(|program| caller(program, &site.layer('b'))).collect();
    thread::sleep(Duration::from_millis(100));
    site.mock.kill();
    assert!(callers.iter_mut().all(|child| ends_within(child, Duration::from_secs(5))));
}

#[test]
fn a_killed_client_leaves_a_dead_mount() {
    if !available() {
        return;
    }
    let mut site = Site::new(Options::default());
    let (known, unknown) = (site.layer('a'), site.layer('b'));
    known.symlink_metadata().unwrap();
    site.mock.kill();
    known.symlink_metadata().expect("a plain stat of what is cached succeeds");
    assert_eq!(statfs(&known).unwrap_err(), Errno::ENOTCONN);
    assert_eq!(errno(xattr::get(&known, "user.fqrn")), Errno::ENOTCONN);
    assert_eq!(errno(fs::read_dir(&known)), Errno::ENOTCONN);
    assert_eq!(errno(unknown.symlink_metadata()), Errno::ENOTCONN);

    site.mock.unmount();
    assert_eq!(errno(known.symlink_metadata()), Errno::ENOENT, "looks like a layer that is not published");
    assert_ne!(statfs(site.mock.mountpoint()).unwrap().filesystem_type(), FUSE_SUPER_MAGIC);
    site.mock.remount();
    assert_eq!(fs::read(unknown.join("etc/b")).unwrap(), b"b");
}

#[test]
fn layers_appear_and_vanish() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let layer_a = site.layer('a');
    assert!(layer_a.join("etc/a").exists());
    site.mock.hide(&digest('a'));
    assert_eq!(errno(layer_a.symlink_metadata()), Errno::ENOENT);
    assert!(names(site.mock.mountpoint().join(".layers/aa").as_path()).is_empty());
    assert!(site.layer('b').exists());
    assert_eq!(xattr::get(site.mock.mountpoint(), "user.revision").unwrap().unwrap(), b"2");
    site.mock.show(&digest('a'));
    assert_eq!(fs::read(layer_a.join("etc/a")).unwrap(), b"a");

    // One that is published later, in a directory that was asked for before.
    let later = site.layer('c');
    assert!(!later.exists());
    fs::create_dir_all(layer(&site.backing(), 'c')).unwrap();
    assert!(!later.exists(), "the kernel remembers");
    site.mock.revision();
    assert!(later.exists());
}

#[test]
fn an_unreachable_server_fails_what_is_not_cached() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let (known, unknown, missing) = (site.layer('a'), site.layer('b'), site.layer('c'));
    assert!(known.join("etc/a").exists());
    site.mock.fail("EIO");
    assert_eq!(fs::read(known.join("etc/both")).unwrap(), b"a");
    for path in [&unknown, &missing] {
        assert_eq!(errno(path.symlink_metadata()), Errno::EIO);
    }
    assert_eq!(statfs(site.mock.mountpoint()).unwrap().filesystem_type(), FUSE_SUPER_MAGIC);
    assert_eq!(xattr::get(site.mock.mountpoint(), "user.fqrn").unwrap().unwrap(), b"test.cern.ch");
    site.mock.fail("none");
    assert!(unknown.exists() && !missing.exists());

    // Known by name, but its own catalog was never loaded.
    site.mock.fail("EIO");
    assert_eq!(errno(fs::read_dir(&unknown)), Errno::EIO);
    assert_eq!(errno(unknown.join("etc").symlink_metadata()), Errno::EIO);
    assert_eq!(counters(&unknown), (String::new(), "error: failed to load catalog!".into()));
    site.mock.fail("none");
    assert_eq!(names(&unknown), [".cvmfscatalog", "etc"]);

    site.mock.fail_layer("ESTALE", &digest('b'));
    assert_eq!(errno(fs::read_dir(&unknown)), Errno::ESTALE);
    assert_eq!(names(&known), [".cvmfscatalog", "etc"]);
}

#[test]
fn slow_requests_do_not_wait_for_each_other() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    for number in 0..8 {
        File::create(layer(&site.backing(), 'a').join(format!("etc/{number}"))).unwrap();
    }
    let directory = site.layer('a').join("etc");
    directory.symlink_metadata().unwrap();
    site.mock.slow(Duration::from_millis(300));
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..8 {
            let path = directory.join(number.to_string());
            scope.spawn(move || path.symlink_metadata().unwrap());
        }
    });
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1500), "{took:?}");
    site.mock.slow(Duration::ZERO);
}
