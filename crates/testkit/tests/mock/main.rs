//! The stand-in for CernVM-FS shows what was measured on the real client, 2.11.5. Needs root and /dev/fuse.

mod life;
mod overlays;
mod shape;
mod states;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use tempfile::TempDir;

use testkit::{Mock, Options, wait_until};

/// A repository with two layers behind a mock.
struct Repository {
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

impl Repository {
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
    wait_until(limit, || child.try_wait().unwrap().is_some())
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

fn layer_file(root: &Path) -> PathBuf {
    layer(root, 'a').join("etc/a")
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
