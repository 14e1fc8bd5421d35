//! `unpack` onto a disk that fails: a layer that is published has all of its files.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{Entry, Image, has_fuse, programs, skip};

use crate::disk::{Disk, Kind};
use crate::with_own_mounts;

const WORD: &str = "unwritable";

fn unpack(image: &Path, disk: &Disk) -> Output {
    let mut command = Command::new(programs::daemon());
    command.args(["unpack", "--quiet"]).arg(image).arg(disk.path().join("repository"));
    command.output().unwrap()
}

/// The directory of a layer in the repository.
fn layer(disk: &Disk, digest: &str) -> std::path::PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    disk.path().join("repository/.layers").join(&hex[..2]).join(hex)
}

/// Another process syncs the file system all the time, and so may be the one that the kernel tells of a failed write.
#[test]
fn a_layer_that_the_disk_did_not_take_is_not_published_whoever_heard_of_it() {
    if !has_fuse() {
        return;
    }
    if let Some(why) = Kind::Ext4.missing() {
        return skip::skip(&why);
    }
    with_own_mounts(|| {
        let mut disk = Disk::new(Kind::Ext4);
        let layout = tempfile::tempdir().unwrap();
        let hit = Entry::file("hit", WORD.repeat(50_000));
        let rest = (0..24).map(|n| Entry::file(&format!("rest {n}"), "content".repeat(200_000)));
        let image = Image::new().layer(std::iter::once(hit).chain(rest).collect()).write(layout.path(), "test/app:1");
        let digest = &image.layers[0].digest;

        disk.fail_writes_of(WORD);
        let (ended, syncing) = (AtomicBool::new(false), File::open(disk.path()).unwrap());
        let output = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut failed = false;
                while !ended.load(Ordering::Relaxed) {
                    failed |= nix::unistd::syncfs(&syncing).is_err();
                }
                failed
            });
            let output = unpack(layout.path(), &disk);
            ended.store(true, Ordering::Relaxed);
            assert!(other.join().unwrap(), "the other one heard of no failure: the disk took everything");
            output
        });
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "unpacked: {told}");
        assert!(told.contains(digest) && told.contains("disk"), "{told}");
        assert!(!layer(&disk, digest).exists(), "published");

        // It would keep the file system mounted.
        drop(syncing);
        // Once the disk takes everything it is unpacked, and on the disk.
        disk.fail(false);
        let output = unpack(layout.path(), &disk);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        disk.freeze(false);
        disk.cut(1);
        disk.remount();
        let content = fs::read_to_string(layer(&disk, digest).join("layerfs/hit")).unwrap();
        assert_eq!(content, WORD.repeat(50_000));
    });
}
