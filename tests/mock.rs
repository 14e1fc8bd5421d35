//! The stand-in for CernVM-FS shows what cvmfs.md records of the real client. Needs root and /dev/fuse.

mod mock_support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mock_support::{Mock, Options, available};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use tempfile::TempDir;

/// A repository with two layers behind a mock.
struct Site {
    mock: Mock,
    directory: TempDir,
}

fn digest(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn layer(root: &Path, letter: char) -> PathBuf {
    let digest = digest(letter);
    root.join(".layers").join(&digest[..2]).join(digest).join("layerfs")
}

fn node(path: &Path, kind: SFlag, mode: u32, device: u64) {
    mknod(path, kind, Mode::from_bits_truncate(mode), device).unwrap();
}

impl Site {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (backing, mountpoint) = (directory.path().join("backing"), directory.path().join("repository"));
        for letter in ['a', 'b'] {
            let root = layer(&backing, letter);
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::write(root.join("etc").join(letter.to_string()), [letter as u8]).unwrap();
            fs::write(root.join("etc/both"), letter.to_string()).unwrap();
            let metadata = root.parent().unwrap().join(".metadata");
            fs::create_dir(&metadata).unwrap();
            fs::write(metadata.join("layers.json"), "[]").unwrap();
        }
        fs::create_dir(&mountpoint).unwrap();
        let mock = Mock::start(&backing, &mountpoint, options);
        Self { mock, directory }
    }

    fn backing(&self) -> PathBuf {
        self.directory.path().join("backing")
    }

    fn layer(&self, letter: char) -> PathBuf {
        layer(self.mock.mountpoint(), letter)
    }

    /// A new local directory.
    fn local(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

/// A mount of the test's own.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn overlay(target: PathBuf, options: &str) -> Mounted {
    mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(options)).unwrap();
    Mounted(target)
}

fn lowers(paths: &[&Path]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    format!("lowerdir={}", paths.join(":"))
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
}

fn counters(path: &Path) -> (String, String) {
    let value = String::from_utf8(xattr::get(path, "user.catalog_counters").unwrap().unwrap()).unwrap();
    let mut lines = value.lines();
    let mut next = |name: &str| lines.next().unwrap().strip_prefix(name).unwrap().to_owned();
    let found = (next("catalog_hash: "), next("catalog_mountpoint: "));
    assert!(lines.clone().count() == 12 && lines.all(|line| line.split(',').count() == 2), "{value}");
    found
}

/// A process that calls into the mount.
fn caller(program: &str, path: &Path) -> Child {
    Command::new(program).arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn looks_like_the_real_mount() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let root = site.mock.mountpoint();
    let state = statfs(root).unwrap();
    assert_eq!(state.filesystem_type(), FUSE_SUPER_MAGIC);
    assert_eq!(state.maximum_name_length(), 0);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == root.to_str()).unwrap();
    let (mount, kind) = line.split_once(" - ").unwrap();
    assert!(mount.contains("ro,nosuid,nodev"), "{line}");
    assert!(kind.starts_with("fuse cvmfs2 ") && kind.contains("default_permissions,allow_other"), "{line}");
    assert_eq!(errno(File::create(root.join("new"))), Errno::EROFS);
    assert_eq!(errno(fs::remove_file(site.layer('a').join("etc/a"))), Errno::EROFS);
    assert_eq!(errno(xattr::set(root, "user.x", b"1")), Errno::EROFS);
}

#[test]
fn extended_attributes_are_the_clients() {
    if !available() {
        return;
    }
    let site = Site::new(Options { fqrn: "unpacked.cern.ch".into(), revision: 41, ..Options::default() });
    let (root, layer) = (site.mock.mountpoint(), site.layer('a'));
    for path in [root, &layer, &layer.join("etc/a")] {
        assert_eq!(xattr::get(path, "user.fqrn").unwrap().unwrap(), b"unpacked.cern.ch");
        assert_eq!(xattr::get(path, "user.revision").unwrap().unwrap(), b"41");
        assert_eq!(xattr::get(path, "user.pid").unwrap().unwrap(), site.mock.pid().to_string().into_bytes());
        assert_eq!(xattr::get(path, "user.other").unwrap(), None);
        assert_eq!(xattr::get(path, "trusted.overlay.opaque").unwrap(), None);
    }
    assert!(xattr::list(root).unwrap().any(|name| name == "user.fqrn"));
    assert_eq!(xattr::list(&layer).unwrap().count(), 0);

    xattr::set(layer_file(&site.backing()), "user.own", b"lost").unwrap();
    assert_eq!(xattr::get(layer.join("etc/a"), "user.own").unwrap(), None);
    assert_eq!(xattr::list(layer.join("etc/a")).unwrap().count(), 0);
}

fn layer_file(root: &Path) -> PathBuf {
    layer(root, 'a').join("etc/a")
}

#[test]
fn catalogs_are_those_of_the_layers() {
    if !available() {
        return;
    }
    let site = Site::new(Options { revision: 41, ..Options::default() });
    let (hash, mountpoint) = counters(&site.layer('a'));
    assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(mountpoint, format!("/.layers/aa/{}/layerfs", digest('a')));
    assert_eq!(counters(&site.layer('a').join("etc/a")), (hash.clone(), mountpoint.clone()));
    assert_ne!(counters(&site.layer('b')).0, hash);

    let outside = counters(site.mock.mountpoint());
    assert_eq!(outside.1, "");
    assert_eq!(counters(site.layer('a').parent().unwrap()), outside);
    assert_eq!(site.mock.revision(), 42);
    assert_eq!(xattr::get(site.mock.mountpoint(), "user.revision").unwrap().unwrap(), b"42");
    assert_ne!(counters(site.mock.mountpoint()).0, outside.0);
    assert_eq!(counters(&site.layer('a')).0, hash, "the layer did not change");
    site.mock.republish(&digest('a'));
    assert_ne!(counters(&site.layer('a')).0, hash, "it did");
}

#[test]
fn catalog_files_are_where_the_publisher_puts_them() {
    if !available() {
        return;
    }
    for autocatalogs in [false, true] {
        let site = Site::new(Options { autocatalogs, ..Options::default() });
        for number in 0..30 {
            fs::create_dir(layer(&site.backing(), 'a').join(format!("directory{number}"))).unwrap();
        }
        let layer = site.layer('a');
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

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_are_as_published() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let root = layer(&site.backing(), 'a');
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

    let seen = site.layer('a');
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
    site.mock.reset_stats();
    let types: Vec<_> = fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().file_type().unwrap()).collect();
    assert_eq!(types.iter().filter(|kind| kind.is_char_device()).count(), 2);
    assert!(types.iter().any(FileTypeExt::is_fifo) && types.iter().any(fs::FileType::is_symlink));
    let operations = site.mock.stats()["operations"].clone();
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
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    for number in 0..3000 {
        File::create(layer(&site.backing(), 'b').join(format!("etc/{number}"))).unwrap();
    }
    assert_eq!(names(&site.layer('b').join("etc")).len(), 3002);
}

#[test]
fn the_kernel_caches() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let (file, missing) = (site.layer('a').join("etc/a"), site.layer('a').join("etc/missing"));
    file.symlink_metadata().unwrap();
    assert!(!missing.exists());
    site.mock.reset_stats();
    for _ in 0..10 {
        file.symlink_metadata().unwrap();
        assert!(!missing.exists());
    }
    assert_eq!(site.mock.requests(), 0);
    xattr::get(&file, "user.fqrn").unwrap();
    statfs(&file).unwrap();
    let stats = site.mock.stats();
    assert_eq!((&stats["operations"]["getxattr"], &stats["operations"]["statfs"]), (&1.into(), &1.into()), "{stats}");
    assert_eq!(stats["layers"][digest('a')], stats["total"]);
}

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

/// cvmfs.md 2, "Trap (measured)".
#[test]
fn an_overlay_of_this_alone_finds_no_name() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let (a, b) = (site.layer('a'), site.layer('b'));
    let bad = overlay(site.local("bad"), &lowers(&[&a, &b]));
    assert_eq!(errno(bad.0.join("etc").symlink_metadata()), Errno::ENAMETOOLONG);

    let cover = site.local("cover");
    node(&cover.join(".cvmfscatalog"), SFlag::S_IFCHR, 0, 0);
    let good = overlay(site.local("good"), &lowers(&[&cover, &a, &b]));
    assert_eq!(names(&good.0), ["etc"]);
    assert_eq!(names(&good.0.join("etc")), ["a", "b", "both"]);
    assert_eq!(fs::read(good.0.join("etc/both")).unwrap(), b"a");
}

#[test]
fn devices_and_set_id_bits_work_through_an_overlay() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let root = layer(&site.backing(), 'a');
    node(&root.join("zero"), SFlag::S_IFCHR, 0o666, makedev(1, 5));
    fs::copy("/usr/bin/id", root.join("id")).unwrap();
    fs::set_permissions(root.join("id"), PermissionsExt::from_mode(0o4755)).unwrap();
    let seen = site.layer('a');
    assert_eq!(errno(File::open(seen.join("zero"))), Errno::EACCES, "nodev");

    let (cover, target) = (site.local("cover"), site.local("target"));
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
    if !available() {
        return;
    }
    let mut site = Site::new(Options::default());
    let cover = site.local("cover");
    let mounted = overlay(site.local("target"), &lowers(&[&cover, &site.layer('a'), &site.layer('b')]));
    let open = File::open(mounted.0.join("etc/a")).unwrap();
    site.mock.revision();
    assert_eq!(fs::read(mounted.0.join("etc/b")).unwrap(), b"b");
    site.mock.unmount();
    assert!(!is_mounted(site.mock.mountpoint()));
    assert_eq!(fs::read(mounted.0.join("etc/both")).unwrap(), b"a");
    assert_eq!(io::read_to_string(open).unwrap(), "a");
    site.mock.remount();
    assert_eq!(fs::read(mounted.0.join("etc/a")).unwrap(), b"a");
    assert_eq!(fs::read(site.layer('a').join("etc/a")).unwrap(), b"a");
    let second = overlay(site.local("second"), &lowers(&[&cover, &site.layer('a')]));
    assert_eq!(names(&second.0.join("etc")), ["a", "both"]);
}

#[test]
fn overlays_do_not_survive_a_crash() {
    if !available() {
        return;
    }
    let mut site = Site::new(Options::default());
    let (upper, work) = (site.local("upper"), site.local("work"));
    let options = |lower: &Path| {
        format!("{},upperdir={},workdir={}", lowers(&[lower]), upper.to_str().unwrap(), work.to_str().unwrap())
    };
    let old = overlay(site.local("old"), &options(&site.layer('a')));
    fs::write(old.0.join("etc/both"), "changed").unwrap();
    site.mock.kill();
    let dead = || {
        assert_eq!(errno(File::open(old.0.join("etc/a"))), Errno::ENOTCONN);
        assert_eq!(errno(old.0.join("etc/new").symlink_metadata()), Errno::ENOTCONN);
        let listed: io::Result<Vec<_>> = fs::read_dir(old.0.join("etc")).and_then(Iterator::collect);
        assert_eq!(errno(listed), Errno::ENOTCONN);
    };
    dead();
    site.mock.remount();
    dead();
    drop(old);
    let new = overlay(site.local("new"), &options(&site.layer('a')));
    assert_eq!(fs::read(new.0.join("etc/both")).unwrap(), b"changed");
    assert_eq!(fs::read(new.0.join("etc/a")).unwrap(), b"a");
}

#[test]
fn nothing_is_left_behind() {
    if !available() {
        return;
    }
    // Quit, drop, drop while hanging, drop by a panic.
    for end in ["quit", "drop", "hang", "panic", "dead"] {
        let mut site = Site::new(Options::default());
        let (mountpoint, pid) = (site.mock.mountpoint().to_owned(), site.mock.pid());
        let process = PathBuf::from(format!("/proc/{pid}"));
        assert!(is_mounted(&mountpoint) && process.exists());
        match end {
            "quit" => site.mock.quit(),
            "hang" => site.mock.hang(),
            "dead" => site.mock.kill(),
            "panic" => {
                let _ = thread::spawn(move || {
                    let _site = site;
                    std::panic::resume_unwind(Box::new("on purpose"));
                })
                .join();
                assert!(!is_mounted(&mountpoint) && !process.exists(), "{end}");
                continue;
            }
            _ => {}
        }
        drop(site);
        assert!(!is_mounted(&mountpoint) && !process.exists(), "{end}");
    }
}

/// The mock goes when the program that started it is gone, even by SIGKILL.
#[test]
fn the_end_of_standard_input_ends_the_mock() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    let (mountpoint, control) = (site.local("other"), site.directory.path().join("other.sock"));
    let mut child = Command::new(mock_support::program())
        .args(["--until-eof", "--backing"])
        .arg(site.backing())
        .arg("--mountpoint")
        .arg(&mountpoint)
        .arg("--control")
        .arg(control)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !is_mounted(&mountpoint) && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(5));
    }
    drop(child.stdin.take());
    assert!(ends_within(&mut child, Duration::from_secs(20)));
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn commands_are_checked() {
    if !available() {
        return;
    }
    let site = Site::new(Options::default());
    for bad in [r#"{"cmd":"x"}"#, r#"{"cmd":"hide"}"#, r#"{"cmd":"fail","errno":"EWHAT"}"#, r#"{"cmd":"remount"}"#] {
        let command = serde_json::from_str(bad).unwrap();
        let refused = std::panic::catch_unwind(|| site.mock.command(command));
        assert!(refused.is_err(), "{bad}");
    }
    site.mock.command(serde_json::json!({ "cmd": "ping" }));
}
