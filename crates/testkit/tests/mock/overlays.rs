//! Overlays on it, as they behave on the real client.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, makedev};

use crate::{Mounted, Repository, errno, is_mounted, layer, lowers, names, node, overlay};
use testkit::{Options, has_fuse};

/// The real client reports `f_namelen` 0, and a read-only overlay takes the limit of its top-most layer.
#[test]
fn an_overlay_of_this_alone_finds_no_name() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let (a, b) = (repository.layer('a'), repository.layer('b'));
    let bad = overlay(repository.local("bad"), &lowers(&[&a, &b]));
    assert_eq!(errno(bad.0.join("etc").symlink_metadata()), Errno::ENAMETOOLONG);

    let cover = repository.local("cover");
    node(&cover.join(".cvmfscatalog"), SFlag::S_IFCHR, 0, 0);
    let good = overlay(repository.local("good"), &lowers(&[&cover, &a, &b]));
    assert_eq!(names(&good.0), ["etc"]);
    assert_eq!(names(&good.0.join("etc")), ["a", "b", "both"]);
    assert_eq!(fs::read(good.0.join("etc/both")).unwrap(), b"a");
}

#[test]
fn devices_and_set_id_bits_work_through_an_overlay() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let root = layer(&repository.backing(), 'a');
    node(&root.join("zero"), SFlag::S_IFCHR, 0o666, makedev(1, 5));
    fs::copy("/usr/bin/id", root.join("id")).unwrap();
    fs::set_permissions(root.join("id"), PermissionsExt::from_mode(0o4755)).unwrap();
    let seen = repository.layer('a');
    assert_eq!(errno(File::open(seen.join("zero"))), Errno::EACCES, "nodev");

    let (cover, target) = (repository.local("cover"), repository.local("target"));
    let mounted = overlay(target, &lowers(&[&cover, &seen]));
    let mut byte = [1];
    io::Read::read_exact(&mut File::open(mounted.0.join("zero")).unwrap(), &mut byte).unwrap();
    assert_eq!(byte, [0]);
    // A directory that others may enter, for the test's temporary one is root's alone.
    let open = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    mount(Some(&mounted.0), open.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let bind = Mounted(open.path().to_owned());
    let output = Command::new(bind.0.join("id")).arg("-u").uid(4711).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
}

#[test]
fn overlays_survive_revisions_and_unmounting() {
    if !has_fuse() {
        return;
    }
    let mut repository = Repository::new(Options::default());
    let cover = repository.local("cover");
    let mounted =
        overlay(repository.local("target"), &lowers(&[&cover, &repository.layer('a'), &repository.layer('b')]));
    let open = File::open(mounted.0.join("etc/a")).unwrap();
    repository.mock.revision();
    assert_eq!(fs::read(mounted.0.join("etc/b")).unwrap(), b"b");
    repository.mock.unmount();
    assert!(!is_mounted(repository.mock.mountpoint()));
    assert_eq!(fs::read(mounted.0.join("etc/both")).unwrap(), b"a");
    assert_eq!(io::read_to_string(open).unwrap(), "a");
    repository.mock.remount();
    assert_eq!(fs::read(mounted.0.join("etc/a")).unwrap(), b"a");
    assert_eq!(fs::read(repository.layer('a').join("etc/a")).unwrap(), b"a");
    let second = overlay(repository.local("second"), &lowers(&[&cover, &repository.layer('a')]));
    assert_eq!(names(&second.0.join("etc")), ["a", "both"]);
}

#[test]
fn overlays_do_not_survive_a_crash() {
    if !has_fuse() {
        return;
    }
    let mut repository = Repository::new(Options::default());
    let (upper, work) = (repository.local("upper"), repository.local("work"));
    let options = |lower: &Path| {
        format!("{},upperdir={},workdir={}", lowers(&[lower]), upper.to_str().unwrap(), work.to_str().unwrap())
    };
    let old = overlay(repository.local("old"), &options(&repository.layer('a')));
    fs::write(old.0.join("etc/both"), "changed").unwrap();
    repository.mock.kill();
    let dead = || {
        assert_eq!(errno(File::open(old.0.join("etc/a"))), Errno::ENOTCONN);
        assert_eq!(errno(old.0.join("etc/new").symlink_metadata()), Errno::ENOTCONN);
        let listed: io::Result<Vec<_>> = fs::read_dir(old.0.join("etc")).and_then(Iterator::collect);
        assert_eq!(errno(listed), Errno::ENOTCONN);
    };
    dead();
    repository.mock.remount();
    dead();
    drop(old);
    let new = overlay(repository.local("new"), &options(&repository.layer('a')));
    assert_eq!(fs::read(new.0.join("etc/both")).unwrap(), b"changed");
    assert_eq!(fs::read(new.0.join("etc/a")).unwrap(), b"a");
}
