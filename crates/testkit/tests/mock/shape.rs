//! What a healthy mount looks like.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, makedev};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

use crate::{Repository, counters, digest, errno, layer, layer_file, names, node};
use testkit::{Options, has_fuse};

#[test]
fn looks_like_the_real_mount() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let root = repository.mock.mountpoint();
    let state = statfs(root).unwrap();
    assert_eq!(state.filesystem_type(), FUSE_SUPER_MAGIC);
    assert_eq!(state.maximum_name_length(), 0);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == root.to_str()).unwrap();
    let (mount, kind) = line.split_once(" - ").unwrap();
    assert!(mount.contains("ro,nosuid,nodev"), "{line}");
    assert!(kind.starts_with("fuse cvmfs2 ") && kind.contains("default_permissions,allow_other"), "{line}");
    assert_eq!(errno(File::create(root.join("new"))), Errno::EROFS);
    assert_eq!(errno(fs::remove_file(repository.layer('a').join("etc/a"))), Errno::EROFS);
    assert_eq!(errno(xattr::set(root, "user.x", b"1")), Errno::EROFS);
}

#[test]
fn extended_attributes_are_the_clients() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options { fqrn: "unpacked.cern.ch".into(), revision: 41, ..Options::default() });
    let (root, layer) = (repository.mock.mountpoint(), repository.layer('a'));
    for path in [root, &layer, &layer.join("etc/a")] {
        assert_eq!(xattr::get(path, "user.fqrn").unwrap().unwrap(), b"unpacked.cern.ch");
        assert_eq!(xattr::get(path, "user.revision").unwrap().unwrap(), b"41");
        assert_eq!(xattr::get(path, "user.pid").unwrap().unwrap(), repository.mock.pid().to_string().into_bytes());
        assert_eq!(xattr::get(path, "user.other").unwrap(), None);
        assert_eq!(xattr::get(path, "trusted.overlay.opaque").unwrap(), None);
    }
    assert!(xattr::list(root).unwrap().any(|name| name == "user.fqrn"));
    assert_eq!(xattr::list(&layer).unwrap().count(), 0);

    xattr::set(layer_file(&repository.backing()), "user.own", b"lost").unwrap();
    assert_eq!(xattr::get(layer.join("etc/a"), "user.own").unwrap(), None);
    assert_eq!(xattr::list(layer.join("etc/a")).unwrap().count(), 0);
}

#[test]
fn catalogs_are_those_of_the_layers() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options { revision: 41, ..Options::default() });
    let (hash, mountpoint) = counters(&repository.layer('a'));
    assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(mountpoint, format!("/.layers/aa/{}/layerfs", digest('a')));
    assert_eq!(counters(&repository.layer('a').join("etc/a")), (hash.clone(), mountpoint.clone()));
    assert_ne!(counters(&repository.layer('b')).0, hash);

    let outside = counters(repository.mock.mountpoint());
    assert_eq!(outside.1, "");
    assert_eq!(counters(repository.layer('a').parent().unwrap()), outside);
    assert_eq!(repository.mock.revision(), 42);
    assert_eq!(xattr::get(repository.mock.mountpoint(), "user.revision").unwrap().unwrap(), b"42");
    assert_ne!(counters(repository.mock.mountpoint()).0, outside.0);
    assert_eq!(counters(&repository.layer('a')).0, hash, "the layer did not change");
    repository.mock.republish(&digest('a'));
    assert_ne!(counters(&repository.layer('a')).0, hash, "it did");
}

#[test]
fn catalog_files_are_where_the_publisher_puts_them() {
    if !has_fuse() {
        return;
    }
    for autocatalogs in [false, true] {
        let repository = Repository::new(Options { autocatalogs, ..Options::default() });
        for number in 0..30 {
            fs::create_dir(layer(&repository.backing(), 'a').join(format!("directory{number}"))).unwrap();
        }
        let layer = repository.layer('a');
        let marker = layer.join(".cvmfscatalog").symlink_metadata().unwrap();
        assert!(marker.is_file() && marker.len() == 0);
        assert!(fs::read(layer.join(".cvmfscatalog")).unwrap().is_empty());
        assert!(names(&layer).contains(&".cvmfscatalog".to_owned()));
        assert!(!layer.join(".cvmfsautocatalog").exists());

        let below: Vec<_> = (0..30).map(|number| layer.join(format!("directory{number}"))).collect();
        let (with, without): (Vec<_>, Vec<_>) = below.iter().partition(|path| path.join(".cvmfscatalog").exists());
        assert!(!without.is_empty());
        assert_eq!(!with.is_empty(), autocatalogs);
        for path in &with {
            assert_eq!(names(path), [".cvmfsautocatalog", ".cvmfscatalog"]);
            assert!(counters(path).1.ends_with(path.file_name().unwrap().to_str().unwrap()));
        }
        assert!(without.iter().all(|path| names(path).is_empty()));
    }
}

#[test]
fn files_are_as_published() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let root = layer(&repository.backing(), 'a');
    fs::write(root.join("su"), vec![7; 300_000]).unwrap();
    chown(root.join("su"), Some(12), Some(34)).unwrap();
    fs::set_permissions(root.join("su"), PermissionsExt::from_mode(0o4750)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_700);
    File::options().write(true).open(root.join("su")).unwrap().set_modified(time).unwrap();
    fs::hard_link(root.join("su"), root.join("link")).unwrap();
    symlink("/etc/a", root.join("symlink")).unwrap();
    node(&root.join("device"), SFlag::S_IFCHR, 0o666, makedev(1, 3));
    node(&root.join("block"), SFlag::S_IFBLK, 0o660, makedev(8, 300));
    node(&root.join("whiteout"), SFlag::S_IFCHR, 0, 0);
    node(&root.join("fifo"), SFlag::S_IFIFO, 0o600, 0);

    let seen = repository.layer('a');
    let su = seen.join("su").symlink_metadata().unwrap();
    assert_eq!((su.uid(), su.gid(), su.mode() & 0o7777, su.nlink(), su.size()), (12, 34, 0o4750, 1, 300_000));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_000_000_000, 0));
    assert_ne!(seen.join("link").symlink_metadata().unwrap().ino(), su.ino());
    assert_eq!(fs::read(seen.join("su")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read_link(seen.join("symlink")).unwrap(), Path::new("/etc/a"));
    for name in ["device", "block", "whiteout", "fifo"] {
        let (ours, theirs) = (seen.join(name).symlink_metadata().unwrap(), root.join(name).symlink_metadata().unwrap());
        assert_eq!((ours.mode(), ours.rdev()), (theirs.mode(), theirs.rdev()), "{name}");
    }
    // Listing tells the type without asking for each entry.
    repository.mock.reset_stats();
    let types: Vec<_> = fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().file_type().unwrap()).collect();
    assert_eq!(types.iter().filter(|kind| kind.is_char_device()).count(), 2);
    assert!(types.iter().any(FileTypeExt::is_fifo) && types.iter().any(fs::FileType::is_symlink));
    let operations = repository.mock.stats()["operations"].clone();
    assert!(operations["lookup"].is_null() && operations["opendir"] == 1, "{operations}");

    // The kernel checks permissions, for everybody.
    let status = |path: &str| {
        Command::new("cat").arg(seen.join(path)).uid(4711).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    assert!(!status("su").unwrap().success());
    assert!(status("etc/a").unwrap().success());
}

#[test]
fn many_entries_are_all_listed() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    for number in 0..3000 {
        File::create(layer(&repository.backing(), 'b').join(format!("etc/{number}"))).unwrap();
    }
    assert_eq!(names(&repository.layer('b').join("etc")).len(), 3002);
}

#[test]
fn the_kernel_caches() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let (file, missing) = (repository.layer('a').join("etc/a"), repository.layer('a').join("etc/missing"));
    file.symlink_metadata().unwrap();
    assert!(!missing.exists());
    repository.mock.reset_stats();
    for _ in 0..10 {
        file.symlink_metadata().unwrap();
        assert!(!missing.exists());
    }
    assert_eq!(repository.mock.requests(), 0);
    xattr::get(&file, "user.fqrn").unwrap();
    statfs(&file).unwrap();
    let stats = repository.mock.stats();
    assert_eq!((&stats["operations"]["getxattr"], &stats["operations"]["statfs"]), (&1.into(), &1.into()), "{stats}");
    assert_eq!(stats["layers"][digest('a')], stats["total"]);
}
