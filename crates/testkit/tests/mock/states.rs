//! The states of a repository, told apart as the daemon does.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

use crate::{Repository, caller, counters, digest, ends_within, errno, layer, names};
use nix::unistd::Pid;
use testkit::mock::waiting_in_fuse;
use testkit::{Options, eventually, has_fuse};

#[test]
fn a_hung_client_answers_from_the_cache_only() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let layer = repository.layer('a');
    let known = layer.join("etc/a");
    known.symlink_metadata().unwrap();
    for round in 0..2 {
        repository.mock.hang();
        known.symlink_metadata().unwrap();
        let mut callers: Vec<_> = (0..3).map(|_| caller("ls", &layer)).collect();
        callers.push(caller("cat", &repository.layer('b').join("etc/both")));
        callers.push(caller("stat", &repository.layer('b').join(format!("etc/unknown{round}"))));
        let mut first = callers.remove(0);
        assert!(!ends_within(&mut first, Duration::from_millis(300)));
        first.kill().unwrap();
        assert!(ends_within(&mut first, Duration::from_secs(5)), "a caller cannot be killed");
        repository.mock.stats();
        known.symlink_metadata().unwrap();
        assert!(callers.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
        repository.mock.unhang();
        assert!(callers.iter_mut().all(|child| ends_within(child, Duration::from_secs(5))));
        assert_eq!(fs::read(&known).unwrap(), b"a");
    }
}

#[test]
fn killing_a_hung_client_frees_its_callers() {
    if !has_fuse() {
        return;
    }
    let mut repository = Repository::new(Options::default());
    repository.mock.hang();
    let mut callers: Vec<_> = ["ls", "stat"].iter().map(|program| caller(program, &repository.layer('b'))).collect();
    eventually("they wait for it", || {
        callers.iter().all(|child| !waiting_in_fuse(Pid::from_raw(child.id().try_into().unwrap())).is_empty())
    });
    repository.mock.kill();
    assert!(callers.iter_mut().all(|child| ends_within(child, Duration::from_secs(5))));
}

#[test]
fn a_killed_client_leaves_a_dead_mount() {
    if !has_fuse() {
        return;
    }
    let mut repository = Repository::new(Options::default());
    let (known, unknown) = (repository.layer('a'), repository.layer('b'));
    known.symlink_metadata().unwrap();
    repository.mock.kill();
    known.symlink_metadata().expect("a plain stat of what is cached succeeds");
    assert_eq!(statfs(&known).unwrap_err(), Errno::ENOTCONN);
    assert_eq!(errno(xattr::get(&known, "user.fqrn")), Errno::ENOTCONN);
    assert_eq!(errno(fs::read_dir(&known)), Errno::ENOTCONN);
    assert_eq!(errno(unknown.symlink_metadata()), Errno::ENOTCONN);

    repository.mock.unmount();
    assert_eq!(errno(known.symlink_metadata()), Errno::ENOENT, "looks like a layer that is not published");
    assert_ne!(statfs(repository.mock.mountpoint()).unwrap().filesystem_type(), FUSE_SUPER_MAGIC);
    repository.mock.remount();
    assert_eq!(fs::read(unknown.join("etc/b")).unwrap(), b"b");
}

#[test]
fn layers_appear_and_vanish() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let layer_a = repository.layer('a');
    assert!(layer_a.join("etc/a").exists());
    repository.mock.hide(&digest('a'));
    assert_eq!(errno(layer_a.symlink_metadata()), Errno::ENOENT);
    assert!(names(repository.mock.mountpoint().join(".layers/aa").as_path()).is_empty());
    assert!(repository.layer('b').exists());
    assert_eq!(xattr::get(repository.mock.mountpoint(), "user.revision").unwrap().unwrap(), b"2");
    repository.mock.show(&digest('a'));
    assert_eq!(fs::read(layer_a.join("etc/a")).unwrap(), b"a");

    // One that is published later, in a directory that was asked for before.
    let later = repository.layer('c');
    assert!(!later.exists());
    fs::create_dir_all(layer(&repository.backing(), 'c')).unwrap();
    assert!(!later.exists(), "the kernel remembers");
    repository.mock.revision();
    assert!(later.exists());
}

#[test]
fn an_unreachable_server_fails_what_is_not_cached() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let (known, unknown, missing) = (repository.layer('a'), repository.layer('b'), repository.layer('c'));
    assert!(known.join("etc/a").exists());
    repository.mock.fail("EIO");
    assert_eq!(fs::read(known.join("etc/both")).unwrap(), b"a");
    for path in [&unknown, &missing] {
        assert_eq!(errno(path.symlink_metadata()), Errno::EIO);
    }
    assert_eq!(statfs(repository.mock.mountpoint()).unwrap().filesystem_type(), FUSE_SUPER_MAGIC);
    assert_eq!(xattr::get(repository.mock.mountpoint(), "user.fqrn").unwrap().unwrap(), b"test.cern.ch");
    repository.mock.fail("none");
    assert!(unknown.exists() && !missing.exists());

    // Known by name, but its own catalog was never loaded.
    repository.mock.fail("EIO");
    assert_eq!(errno(fs::read_dir(&unknown)), Errno::EIO);
    assert_eq!(errno(unknown.join("etc").symlink_metadata()), Errno::EIO);
    assert_eq!(counters(&unknown), (String::new(), "error: failed to load catalog!".into()));
    repository.mock.fail("none");
    assert_eq!(names(&unknown), [".cvmfscatalog", "etc"]);

    repository.mock.fail_layer("ESTALE", &digest('b'));
    assert_eq!(errno(fs::read_dir(&unknown)), Errno::ESTALE);
    assert_eq!(names(&known), [".cvmfscatalog", "etc"]);
}

#[test]
fn slow_requests_do_not_wait_for_each_other() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    for number in 0..8 {
        File::create(layer(&repository.backing(), 'a').join(format!("etc/{number}"))).unwrap();
    }
    let directory = repository.layer('a').join("etc");
    directory.symlink_metadata().unwrap();
    repository.mock.slow(Duration::from_millis(300));
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..8 {
            let path = directory.join(number.to_string());
            scope.spawn(move || path.symlink_metadata().unwrap());
        }
    });
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1500), "{took:?}");
    repository.mock.slow(Duration::ZERO);
}
