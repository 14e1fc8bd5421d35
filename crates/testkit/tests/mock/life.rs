//! The program itself: it leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::{Repository, ends_within, is_mounted};
use testkit::{Options, eventually, has_fuse};

#[test]
fn nothing_is_left_behind() {
    if !has_fuse() {
        return;
    }
    // Quit, drop, drop while hanging, drop by a panic.
    for end in ["quit", "drop", "hang", "panic", "dead"] {
        let mut repository = Repository::new(Options::default());
        let (mountpoint, pid) = (repository.mock.mountpoint().to_owned(), repository.mock.pid());
        let process = PathBuf::from(format!("/proc/{pid}"));
        assert!(is_mounted(&mountpoint) && process.exists());
        match end {
            "quit" => repository.mock.quit(),
            "hang" => repository.mock.hang(),
            "dead" => repository.mock.kill(),
            "panic" => {
                let _ = thread::spawn(move || {
                    let _site = repository;
                    std::panic::resume_unwind(Box::new("on purpose"));
                })
                .join();
                assert!(!is_mounted(&mountpoint) && !process.exists(), "{end}");
                continue;
            }
            _ => {}
        }
        drop(repository);
        assert!(!is_mounted(&mountpoint) && !process.exists(), "{end}");
        assert!(!is_argument(&mountpoint), "{end}");
    }
}

/// The mock goes when the program that started it is gone, even by SIGKILL.
#[test]
fn the_end_of_standard_input_ends_the_mock() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    let (mountpoint, control) = (repository.local("other"), repository.directory.path().join("other.sock"));
    let mut child = Command::new(testkit::programs::helper("mock-cvmfs"))
        .args(["--until-eof", "--backing"])
        .arg(repository.backing())
        .arg("--mountpoint")
        .arg(&mountpoint)
        .arg("--control")
        .arg(control)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is mounted", || is_mounted(&mountpoint));
    drop(child.stdin.take());
    assert!(ends_within(&mut child, Duration::from_secs(20)));
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn commands_are_checked() {
    if !has_fuse() {
        return;
    }
    let repository = Repository::new(Options::default());
    for bad in [r#"{"cmd":"x"}"#, r#"{"cmd":"hide"}"#, r#"{"cmd":"fail","errno":"EWHAT"}"#, r#"{"cmd":"remount"}"#] {
        let command = serde_json::from_str(bad).unwrap();
        let refused = std::panic::catch_unwind(|| repository.mock.command(command));
        assert!(refused.is_err(), "{bad}");
    }
    repository.mock.command(serde_json::json!({ "cmd": "ping" }));
}

/// Whether some process was started with this path.
fn is_argument(path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .any(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == path))
}
