//! A disk that is full to the last block: what makes room still works, also after a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use containerd_snapshots::tonic::Code;
use nix::sys::signal::Signal;

use crate::disk::{Disk, Kind};
use crate::with_own_mounts;
use testkit::{Daemon, Labels, Settings, has_fuse, skip, upper};

const CONTAINERS: usize = 3;

/// As a container that writes until nothing can be written any more.
fn fill(directory: &Path) {
    let is_full = |result: std::io::Result<()>| match result {
        Ok(()) => false,
        Err(e) if e.kind() == ErrorKind::StorageFull => true,
        Err(e) => panic!("{}: {e}", directory.display()),
    };
    for size in [1 << 20, 4096, 1] {
        let mut file = OpenOptions::new().create(true).append(true).open(directory.join("filler")).unwrap();
        while !is_full(file.write_all(&vec![7; size])) {}
        let _ = file.sync_all();
    }
    for number in 0.. {
        if is_full(File::create(directory.join(format!("{number:0>200}"))).and_then(|mut f| f.write_all(b"x"))) {
            break;
        }
    }
    // What was delayed has its place now.
    nix::unistd::sync();
}

fn room_is_made_on(kind: Kind) {
    if !has_fuse() {
        return;
    }
    if let Some(why) = kind.missing() {
        return skip::skip(&why);
    }
    with_own_mounts(|| {
        let disk = Disk::new(kind);
        let mut daemon = Daemon::stopped_with_root(&Settings::default(), &disk.path().join("root"));
        daemon.restart();
        let client = daemon.client();
        client.committed("base", "");
        let keys: Vec<String> = (0..CONTAINERS).map(|number| format!("container {number}")).collect();
        let tops: Vec<_> =
            keys.iter().map(|key| upper(&client.prepare(key, "base", &Labels::new()).unwrap())).collect();
        let mut left = client.keys();
        for (number, (key, top)) in keys.iter().zip(&tops).enumerate() {
            fill(top);
            let refused = client.prepare("another", "base", &Labels::new());
            if let Err(status) = &refused {
                assert_eq!(status.code(), Code::ResourceExhausted, "{kind}: {status:?}");
            }
            // As after an update, or when somebody tries what helps against everything.
            daemon.stop(if number == 0 { Signal::SIGTERM } else { Signal::SIGKILL });
            fill(top);
            daemon.restart();
            let client = daemon.client();
            if refused.is_ok() {
                client.remove("another").unwrap_or_else(|e| panic!("{kind}: {e:?}: {}", daemon.log()));
            }
            client.remove(key).unwrap_or_else(|e| panic!("{kind}: Remove on a full disk: {e:?}: {}", daemon.log()));
            client.cleanup().unwrap();
            assert!(!top.exists());
            left.retain(|name| name != key);
            assert_eq!(client.keys(), left, "{kind}");
            client.prepare("afterwards", "base", &Labels::new()).unwrap();
            client.remove("afterwards").unwrap();
        }
        daemon.client().cleanup().unwrap();
        assert!(fs::read_dir(daemon.root().join("trash")).unwrap().next().is_none());
    });
}

#[test]
fn room_is_made_on_a_full_ext4() {
    room_is_made_on(Kind::Ext4);
}

#[test]
fn room_is_made_on_a_full_xfs() {
    room_is_made_on(Kind::Xfs);
}

#[test]
fn room_is_made_on_a_full_btrfs() {
    room_is_made_on(Kind::Btrfs);
}
