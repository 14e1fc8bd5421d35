//! A disk that fails: nothing that was acknowledged is lost, what fails says so, and the daemon never makes room or begins
//! anew to go on.

use std::fs;

use containerd_snapshots::tonic::Code;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::disk::{Disk, Kind};
use crate::with_own_mounts;
use testkit::{Daemon, Info, Labels, Settings, eventually, has_fuse, lowers, skip, upper};

/// A disk with a daemon that has some snapshots, and what it lists.
fn with_daemon(run: impl FnOnce(Disk, Daemon, Vec<Info>) + Send) {
    if !has_fuse() {
        return;
    }
    if let Some(why) = Kind::Ext4.missing() {
        return skip::skip(&why);
    }
    with_own_mounts(|| {
        let disk = Disk::new(Kind::Ext4);
        let mut daemon = Daemon::stopped_with_root(&Settings::default(), &disk.path().join("root"));
        daemon.restart();
        let client = daemon.client();
        client.committed("base", "");
        client.prepare("container", "base", &Labels::new()).unwrap();
        client.view("view", "base", &Labels::new()).unwrap();
        let listed = sorted(client.list(&[]).unwrap());
        run(disk, daemon, listed);
    });
}

fn sorted(mut infos: Vec<Info>) -> Vec<Info> {
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    infos
}

#[test]
fn a_disk_that_fails_loses_nothing_that_was_acknowledged() {
    with_daemon(|mut disk, mut daemon, listed| {
        let client = daemon.client();
        disk.fail(true);
        let refused = [
            ("Prepare", client.prepare("new", "base", &Labels::new()).map(drop)),
            ("Commit", client.commit("new", "container", &Labels::new())),
            ("Remove", client.remove("container")),
            ("Update", client.update("base", &Labels::new(), &[]).map(drop)),
        ];
        for (request, answer) in refused {
            let status = answer.expect_err(request);
            let message = status.message().to_lowercase();
            assert!(message.contains("input/output") || message.contains("read-only"), "{request}: {status:?}");
            assert!(message.contains("; ") && message.contains("`dmesg`"), "{request}: no remedy: {status:?}");
            assert_ne!(status.code(), Code::NotFound, "{request}");
        }
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
        // The file system has shut itself off, as it would until the next start of the machine.
        daemon.stop(Signal::SIGKILL);
        disk.fail(false);
        disk.remount();
        daemon.restart();
        let client = daemon.client();
        assert_eq!(sorted(client.list(&[]).unwrap()), listed);
        client.mounts("container").unwrap();
        client.cleanup().unwrap();
        client.commit("new", "container", &Labels::new()).unwrap();
    });
}

/// The kernel tells of a failed write once, and takes what it could not write for written.
#[test]
fn what_the_disk_did_not_take_is_never_committed() {
    with_daemon(|mut disk, mut daemon, listed| {
        const WORD: &str = "unwritable";
        let client = daemon.client();
        let extracted = |key: &str, content: &str| {
            let top = upper(&client.prepare(key, "base", &Labels::new()).unwrap());
            fs::write(top.join("file"), content.repeat(10_000)).unwrap();
        };
        extracted("hit", WORD);
        extracted("beside", "content");
        disk.fail_writes_of(WORD);
        let status = client.commit("layer", "hit", &Labels::new()).unwrap_err();
        assert!(status.message().contains("Input/output error") && status.message().contains("`dmesg`"), "{status:?}");
        disk.fail(false);
        // Whose files were lost nobody knows.
        for key in ["hit", "beside", "container"] {
            let status = client.commit("layer", key, &Labels::new()).unwrap_err();
            assert_eq!(status.code(), Code::DataLoss, "{key}: {status:?}");
            assert!(status.message().contains("pull its image again"), "{key}: {status:?}");
        }
        client.remove("hit").unwrap();
        client.remove("beside").unwrap();
        extracted("again", "content");
        client.commit("layer", "again", &Labels::new()).unwrap();
        // What was acknowledged is on the disk.
        disk.freeze(false);
        daemon.signal(Signal::SIGKILL);
        disk.cut(1);
        daemon.wait();
        disk.remount();
        daemon.restart();
        let client = daemon.client();
        let view = lowers(&client.view("look", "layer", &Labels::new()).unwrap());
        assert_eq!(fs::read_to_string(view[0].join("file")).unwrap(), "content".repeat(10_000));
        client.remove("look").unwrap();
        client.remove("layer").unwrap();
        assert_eq!(sorted(client.list(&[]).unwrap()), listed);
    });
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused_and_named() {
    with_daemon(|mut disk, mut daemon, listed| {
        daemon.stop(Signal::SIGTERM);
        let remount = |flags: MsFlags| {
            let flags = MsFlags::MS_REMOUNT | flags;
            mount(None::<&str>, &disk.path(), None::<&str>, flags, None::<&str>).is_ok()
        };
        eventually("it is mounted read-only", || remount(MsFlags::MS_RDONLY));
        daemon.spawn();
        assert!(!daemon.wait().success());
        let root = daemon.root();
        let told = daemon.lines(&["Read-only file system", root.to_str().unwrap()]);
        assert_eq!(told.len(), 1, "{}", daemon.log());
        assert!(remount(MsFlags::empty()));
        disk.remount();
        daemon.restart();
        assert_eq!(sorted(daemon.client().list(&[]).unwrap()), listed);
    });
}
