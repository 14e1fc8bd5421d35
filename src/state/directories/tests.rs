use std::os::unix::fs::FileTypeExt;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::overlay::plan::Attributes;

struct Scratch {
    directory: tempfile::TempDir,
    tree: Directories,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        Directories::prepare_root(&root).unwrap();
        let tree = Directories::open(&root).unwrap();
        Self { directory, tree }
    }

    fn layer(&self) -> PathBuf {
        let layer = self.directory.path().join("layer");
        fs::create_dir_all(&layer).unwrap();
        layer
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn me() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

#[test]
fn a_root_that_others_may_enter_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("r");
    Directories::prepare_root(&root).unwrap();
    assert_eq!((mode(&root), mode(&root.join("snapshots"))), (0o700, 0o700));
    fs::create_dir(root.join("snapshots/1")).unwrap();
    for open in [&root, &root.join("snapshots")] {
        fs::set_permissions(open, Permissions::from_mode(0o711)).unwrap();
        assert!(matches!(Directories::prepare_root(&root), Err(Error::Open { mode: 0o711, .. })));
        fs::set_permissions(open, Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_new_root_that_others_may_enter_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("r");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    Directories::prepare_root(&root).unwrap();
    assert_eq!(mode(&root), 0o700);
}

#[test]
fn a_local_snapshot_has_its_modes_whatever_the_umask() {
    let Scratch { directory: _directory, tree } = Scratch::new();
    tree.create_local(7, Some(me()), true).unwrap();
    let directory = tree.directory(7);
    assert_eq!((mode(&directory), mode(&directory.join("fs")), mode(&directory.join("work"))), (0o700, 0o755, 0o711));
    assert_eq!(tree.check_local(7).unwrap(), me());
    assert!(matches!(tree.create_local(7, None, false), Err(Error::Io { .. })), "never made twice");
}

#[test]
fn the_files_of_a_local_snapshot_are_never_made_again() {
    let Scratch { directory: _directory, tree } = Scratch::new();
    tree.create_local(7, None, true).unwrap();
    fs::remove_dir(tree.fs(7)).unwrap();
    assert!(matches!(tree.check_local(7), Err(Error::Lost(_))));
    symlink("/", tree.fs(7)).unwrap();
    assert!(matches!(tree.check_local(7), Err(Error::Lost(_))), "a link is not the snapshot's");
    assert!(matches!(tree.check_local(8), Err(Error::Lost(_))));
}

#[test]
fn a_link_that_is_missing_or_leads_elsewhere_is_made_again() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    tree.create_remote(3, Path::new("/elsewhere")).unwrap();
    tree.ensure_link(3, &layer).unwrap();
    assert_eq!(tree.link(3), Some(layer.clone()));
    fs::remove_file(tree.fs(3)).unwrap();
    tree.ensure_link(3, &layer).unwrap();
    fs::remove_dir_all(tree.directory(3)).unwrap();
    tree.ensure_link(3, &layer).unwrap();
    assert_eq!(tree.link(3), Some(layer));
}

fn plan() -> Plan {
    let (uid, gid) = me();
    let attributes = |mode, seconds| Attributes { mode, uid, gid, mtime: (seconds, 5), xattrs: Vec::new() };
    Plan {
        root: attributes(0o711, 1),
        directories: vec![(b"d".to_vec(), attributes(0o1750, 2)), (b"d/e".to_vec(), attributes(0o710, 3))],
        whiteouts: vec![b"d/e/.wh.x".to_vec(), b"d/e/x".to_vec(), b"\xff\n".to_vec()],
        opaque: vec![b"d/e/x".to_vec(), b"o".to_vec()],
        erased: vec![b"o".to_vec()],
        ..Plan::default()
    }
}

#[test]
fn cover_seal_and_erase_are_what_the_plan_says() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    tree.create_remote(3, &scratch.layer()).unwrap();
    tree.ensure_overlay_directories(3, &plan(), false).unwrap();
    let directory = tree.directory(3);
    let cover = directory.join("c");
    for whiteout in ["d/e/.wh.x", "d/e/x", ".cvmfscatalog"].map(|name| cover.join(name)) {
        let metadata = fs::symlink_metadata(&whiteout).unwrap();
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0, "{whiteout:?}");
    }
    for (path, mode, seconds) in [("", 0o711, 1), ("d", 0o1750, 2), ("d/e", 0o710, 3)] {
        let metadata = fs::symlink_metadata(cover.join(path)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()), (mode, seconds, 5), "{path}");
    }
    assert!(fs::symlink_metadata(directory.join("e/o")).unwrap().file_type().is_char_device());
}

#[test]
fn a_seal_marks_its_opaque_directories() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    if !tree.has_seals() {
        return testkit::skip::skip("extended attributes cannot be set here");
    }
    tree.create_remote(3, &scratch.layer()).unwrap();
    tree.ensure_overlay_directories(3, &plan(), false).unwrap();
    for opaque in ["s/d/e/x", "s/o"] {
        let value = xattr::get(tree.directory(3).join(opaque), "user.overlay.opaque").unwrap();
        assert_eq!(value.as_deref(), Some(&b"y"[..]));
    }
}

#[test]
fn a_cover_keeps_the_bits_that_set_ids() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    // Sandboxes of package builds refuse it, and the kernel leaves the bit out for a stranger's group.
    let set = fs::set_permissions(&layer, Permissions::from_mode(0o2700));
    if set.is_err() || mode(&layer) != 0o2700 {
        return testkit::skip::skip("bits that set ids cannot be set here");
    }
    let mut plan = plan();
    plan.directories[1].1.mode = 0o2700;
    tree.create_remote(3, &layer).unwrap();
    tree.ensure_overlay_directories(3, &plan, false).unwrap();
    assert_eq!(mode(&tree.directory(3).join("c/d/e")), 0o2700);
}

#[test]
fn what_is_missing_is_made_again_and_what_is_there_is_not_touched() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    tree.create_remote(3, &scratch.layer()).unwrap();
    tree.ensure_overlay_directories(3, &plan(), false).unwrap();
    let directory = tree.directory(3);
    let inode = |name: &str| fs::metadata(directory.join(name)).unwrap().ino();
    let cover = inode("c");
    fs::remove_dir_all(directory.join("e")).unwrap();
    tree.ensure_overlay_directories(3, &plan(), false).unwrap();
    assert_eq!(inode("c"), cover);
    assert!(directory.join("e/o").symlink_metadata().is_ok());

    let names = || fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|name| !name.starts_with('.') && name != "new"), "nothing is left beside them");
    let other = Plan { whiteouts: vec![b"other".to_vec()], ..plan() };
    tree.ensure_overlay_directories(3, &other, false).unwrap();
    assert!(directory.join("c/other").symlink_metadata().is_ok());
    let kept = names()
        .filter(|name| name.starts_with('.'))
        .any(|name| fs::metadata(directory.join(name)).is_ok_and(|metadata| metadata.ino() == cover));
    assert!(kept, "a container may be using the old cover");
}

#[test]
fn nothing_of_an_earlier_plan_counts_as_made_of_a_later_one() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    tree.create_remote(3, &layer).unwrap();
    let there = |name: &str| tree.directory(3).join(name).symlink_metadata().is_ok();
    let before = Plan { whiteouts: vec![b"gone".to_vec()], ..plan() };
    tree.ensure_overlay_directories(3, &before, true).unwrap();
    assert!(there("c/gone"));
    // The layer was published anew: it deletes nothing, but has an opaque directory, which asks for other ones.
    let after = Plan { whiteouts: vec![], ..plan() };
    tree.ensure_overlay_directories(3, &after, false).unwrap();
    tree.ensure_overlay_directories(3, &after, true).unwrap();
    assert!(!there("c/gone"));
}

#[test]
fn what_was_made_of_a_later_plan_in_part_does_not_count_as_made_of_the_earlier_one() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    tree.create_remote(3, &layer).unwrap();
    let there = |name: &str| tree.directory(3).join(name).symlink_metadata().is_ok();
    let before = Plan { whiteouts: vec![b"before".to_vec()], ..plan() };
    tree.ensure_overlay_directories(3, &before, true).unwrap();
    // As a full disk or a crash would have it.
    let after = Plan { whiteouts: vec![b"after".to_vec()], erased: vec![vec![b'x'; 300]], ..plan() };
    tree.ensure_overlay_directories(3, &after, true).unwrap_err();
    assert!(there("c/after"));
    tree.ensure_overlay_directories(3, &before, true).unwrap();
    assert!(there("c/before") && !there("c/after"));
}

#[test]
fn what_a_crash_left_half_made_is_taken_away() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    tree.create_remote(3, &layer).unwrap();
    let directory = tree.directory(3);
    let (new, replaced) = (directory.join("new"), directory.join(".0"));
    fs::create_dir_all(replaced.join("in/use")).unwrap();
    let crash = || fs::create_dir_all(new.join("some/thing")).unwrap();
    crash();
    tree.ensure_overlay_directories(3, &plan(), true).unwrap();
    assert!(!new.exists() && directory.join("c/d/e").is_dir());
    crash();
    tree.ensure_link(3, &layer.join("moved")).unwrap();
    assert!(!new.exists());
    crash();
    tree.discard_unfinished(3).unwrap();
    symlink(&layer, &new).unwrap();
    tree.discard_unfinished(3).unwrap();
    tree.discard_unfinished(3).unwrap();
    tree.discard_unfinished(4).unwrap();
    assert!(new.symlink_metadata().is_err() && replaced.join("in/use").is_dir() && layer.is_dir());
    tree.empty_trash().unwrap();
    assert_eq!(fs::read_dir(tree.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn a_layer_without_markers_has_a_cover_only_where_it_is_asked_for() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    tree.create_remote(3, &scratch.layer()).unwrap();
    tree.ensure_overlay_directories(3, &Plan::default(), false).unwrap();
    assert!(!tree.directory(3).join("c").exists());
    let (uid, gid) = me();
    let plan = Plan { root: Attributes { mode: 0o755, uid, gid, ..Attributes::default() }, ..Plan::default() };
    tree.ensure_overlay_directories(3, &plan, true).unwrap();
    assert!(tree.directory(3).join("c/.cvmfscatalog").symlink_metadata().is_ok());
}

#[test]
fn removal_follows_no_link_and_takes_trees_of_any_depth() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    fs::write(layer.join("precious"), "x").unwrap();
    tree.create_remote(3, &layer).unwrap();
    tree.create_local(4, None, true).unwrap();
    symlink(&layer, tree.fs(4).join("link")).unwrap();
    nest(&tree.fs(4), 3000);
    fs::create_dir(tree.fs(4).join("locked")).unwrap();
    fs::write(tree.fs(4).join("locked/file"), "x").unwrap();
    tree.discard(3).unwrap();
    tree.discard(4).unwrap();
    tree.discard(5).unwrap();
    tree.empty_trash().unwrap();
    assert_eq!(tree.ids().unwrap(), Vec::<u64>::new());
    assert_eq!(fs::read_dir(tree.root().join("trash")).unwrap().count(), 0);
    assert_eq!(fs::read(layer.join("precious")).unwrap(), b"x");
}

#[test]
fn what_is_mounted_in_a_removed_snapshot_is_not_deleted() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    fs::write(layer.join("precious"), "x").unwrap();
    tree.create_local(4, None, false).unwrap();
    let target = tree.fs(4).join("mounted");
    fs::create_dir(&target).unwrap();
    // On the same file system, so that no device number tells it apart.
    let bind = nix::mount::MsFlags::MS_BIND;
    match nix::mount::mount(Some(&layer), &target, None::<&str>, bind, None::<&str>) {
        // Also root, in most containers.
        Err(nix::errno::Errno::EPERM) => return testkit::skip::lacks("it needs to mount"),
        result => result.unwrap(),
    }
    let unmounted = || nix::mount::umount2(&tree.root().join("trash/4/fs/mounted"), nix::mount::MntFlags::empty());
    tree.discard(4).unwrap();
    let result = tree.empty_trash();
    unmounted().unwrap();
    assert!(matches!(result, Err(Error::Mounted(_))), "{result:?}");
    assert_eq!(fs::read(layer.join("precious")).unwrap(), b"x");
    tree.empty_trash().unwrap();
}

#[test]
fn usage_counts_each_inode_once() {
    let Scratch { directory: _directory, tree } = Scratch::new();
    tree.create_local(4, None, false).unwrap();
    let fs = tree.fs(4);
    let empty = tree.usage(4).unwrap();
    assert_eq!(empty.inodes, 1, "the root");
    // Nothing that a file system could compress.
    fs::write(fs.join("a"), std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect::<Vec<_>>()).unwrap();
    File::open(fs.join("a")).unwrap().sync_all().unwrap();
    fs::hard_link(fs.join("a"), fs.join("b")).unwrap();
    symlink("a", fs.join("c")).unwrap();
    let usage = tree.usage(4).unwrap();
    assert_eq!(usage.inodes, 3);
    assert!((100_000..200_000).contains(&(usage.bytes - empty.bytes)), "{usage:?}");
}

/// Makes a directory below each one before, deeper than any path can name, as a container can.
fn nest(directory: &Path, levels: usize) {
    let mut at = File::open(directory).unwrap();
    for _ in 0..levels {
        nix::sys::stat::mkdirat(&at, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY;
        at = File::from(nix::fcntl::openat(&at, "d", flags, nix::sys::stat::Mode::empty()).unwrap());
    }
}

#[test]
fn usage_counts_trees_of_any_depth() {
    let Scratch { directory: _directory, tree } = Scratch::new();
    tree.create_local(4, None, false).unwrap();
    nest(&tree.fs(4), 3000);
    assert_eq!(tree.usage(4).unwrap().inodes, 3001);
    tree.discard(4).unwrap();
    tree.empty_trash().unwrap();
}

#[test]
fn usage_is_not_led_outside() {
    let scratch = Scratch::new();
    let (layer, tree) = (scratch.layer(), &scratch.tree);
    for n in 0..50 {
        fs::create_dir(layer.join(n.to_string())).unwrap();
    }
    tree.create_local(4, None, false).unwrap();
    let (one, other) = (tree.fs(4).join("one"), tree.fs(4).join("other"));
    fs::create_dir(&one).unwrap();
    symlink(&layer, &other).unwrap();
    let exchange = || {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE)
    };
    if exchange() == Err(nix::errno::Errno::EINVAL) {
        return testkit::skip::skip("this file system cannot exchange names");
    }
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As a container can do it all day.
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                exchange().unwrap();
            }
        });
        let usages: Vec<_> = (0..20_000).map(|_| tree.usage(4).map(|usage| usage.inodes)).collect();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        let most = usages.into_iter().map(Result::unwrap).max().unwrap();
        assert!(most < 10, "{most} of these, and 50 outside");
    });
}

#[test]
fn a_directory_of_many_names_is_removed() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    tree.create_local(4, None, false).unwrap();
    fs::write(tree.fs(4).join("first"), "x").unwrap();
    for n in 0..5000 {
        fs::hard_link(tree.fs(4).join("first"), tree.fs(4).join(n.to_string())).unwrap();
    }
    tree.discard(4).unwrap();
    tree.empty_trash().unwrap();
    assert_eq!(fs::read_dir(tree.root().join("trash")).unwrap().count(), 0);
}
