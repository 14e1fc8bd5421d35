//! The command line: the configuration, `health`, what is refused at the start, and the end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;

use testkit::{Daemon, Labels, Settings, is_root, names};

fn run(arguments: &[&str]) -> Output {
    Command::new(testkit::programs::daemon()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn version_and_help() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(text(&version.stdout), format!("cvmfs-snapshotter {}\n", env!("CARGO_PKG_VERSION")));
    let help = text(&run(&["--help"]).stdout);
    for part in ["--address", "--config", "--log-level", "--root", "health", "config", "unpack"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn a_configuration_is_checked_and_dumped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "repository = 'sft.cern.ch'\n").unwrap();
    let check = run(&["config", "check", "--config", path]);
    assert!(check.status.success() && check.stderr.is_empty(), "{check:?}");
    let dump = run(&["config", "dump", "--config", path, "--root", "/srv/x"]);
    let dumped = text(&dump.stdout);
    for part in ["root = \"/srv/x\"", "path = \"/cvmfs/sft.cern.ch\"", "probe = ", "address = "] {
        assert!(dumped.contains(part), "{part}: {dumped}");
    }
    // What is dumped is a configuration, and means the same.
    fs::write(&file, &dumped).unwrap();
    assert_eq!(text(&run(&["config", "dump", "--config", path]).stdout), dumped);
}

#[test]
fn a_wrong_configuration_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let path = file.to_str().unwrap();
    for (content, line, word) in [
        ("\n\nrepositry = 'x'\n", "3", "repositry"),
        ("root = 'relative'\n", "1", "relative"),
        ("\n[timeouts]\nprobe = '0s'\n", "3", "0"),
        ("[[repositories]]\nname = 'a'\npath = '/x:y'\nkind = 'directory'\n", "3", "':'"),
        ("address = 3\n", "1", "string"),
        ("[[repositories]]\nname = 'a'\npath = '/x'\nkind = 'nfs'\n", "4", "nfs"),
    ] {
        fs::write(&file, content).unwrap();
        for arguments in [&["config", "check"][..], &["config", "dump"], &["health"], &["serve"], &[]] {
            let output = run(&[arguments, &["--config", path]].concat());
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?} {message}");
            assert!(message.contains(path) && message.contains(word), "{message}");
            assert!(message.contains(&format!("line {line}")), "{message}");
        }
    }
    let missing = run(&["config", "check", "--config", "/nonexistent.toml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("/nonexistent.toml"));
}

#[test]
fn health_tells_whether_the_daemon_serves() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::stopped(&Settings::default());
    let health = |daemon: &Daemon| {
        let output = daemon.command().arg("health").output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, message) = health(&daemon);
    assert!(code == Some(1) && message.contains(daemon.socket().to_str().unwrap()), "{message}");
    daemon.restart();
    let (code, message) = health(&daemon);
    assert!(code == Some(0) && message.contains("serves"), "{message}");
    daemon.stop(Signal::SIGKILL);
    assert_eq!(health(&daemon).0, Some(1), "a socket that nobody listens on");
    // Somebody who accepts and says nothing.
    fs::remove_file(daemon.socket()).unwrap();
    let _silent = UnixListener::bind(daemon.socket()).unwrap();
    assert_eq!(health(&daemon).0, Some(1));
}

#[test]
fn the_socket_and_the_directories_are_roots_alone() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::start(&Settings::default());
    let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.socket()), 0o600);
    assert_eq!(names(daemon.socket().parent().unwrap()), ["s.sock"]);
    for directory in
        [daemon.socket().parent().unwrap(), &daemon.root(), &daemon.snapshots(), &daemon.root().join("trash")]
    {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    assert_eq!(mode(&daemon.root().join("metadata.redb")), 0o600);
}

#[test]
fn what_lies_at_the_path_of_the_socket_is_not_touched() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::stopped(&Settings::default());
    let socket = daemon.socket();
    fs::create_dir(socket.parent().unwrap()).unwrap();

    fs::write(&socket, "mine").unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(78));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
    fs::remove_file(&socket).unwrap();

    fs::create_dir_all(socket.join("inside")).unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(78));
    assert!(socket.join("inside").is_dir());
    fs::remove_dir_all(&socket).unwrap();

    let target = daemon.path("target");
    std::os::unix::fs::symlink(&target, &socket).unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(78));
    assert_eq!(fs::read_link(&socket).unwrap(), target);
    fs::remove_file(&socket).unwrap();

    let live = UnixListener::bind(&socket).unwrap();
    let inode = fs::metadata(&socket).unwrap().ino();
    daemon.spawn();
    assert!(!daemon.wait().success());
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    UnixStream::connect(&socket).unwrap();
    drop(live);

    // Nobody listens any more: it is a stale one.
    daemon.restart();
    daemon.client().list(&[]).unwrap();
    let log = daemon.log();
    for part in ["a file", "a directory", "a symbolic link", "another process listens"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::start(&Settings::default());
    let client = daemon.client();
    client.committed("c", "");
    // On the same state directory, with the same socket and with another one.
    for socket in [daemon.socket(), daemon.path("other.sock")] {
        let output = Command::new(testkit::programs::daemon())
            .arg("--config")
            .arg(daemon.config())
            .arg("--root")
            .arg(daemon.root())
            .arg("--address")
            .arg(&socket)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("in use by another process"), "{output:?}");
    }
    assert!(!daemon.path("other.sock").exists());
    // On another state directory, with the same socket.
    let output = Command::new(testkit::programs::daemon())
        .arg("--config")
        .arg(daemon.config())
        .arg("--root")
        .arg(daemon.path("other"))
        .arg("--address")
        .arg(daemon.socket())
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("another process listens"), "{output:?}");
    assert_eq!(client.keys(), ["c"]);
    assert_eq!(daemon.client().keys(), ["c"]);
}

#[test]
fn a_stop_is_clean_as_soon_as_the_socket_is_there() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::stopped(&Settings::default());
    for _ in 0..10 {
        daemon.spawn();
        while UnixStream::connect(daemon.socket()).is_err() {
            assert!(daemon.is_running(), "{}", daemon.log());
        }
        assert_eq!(daemon.stop(Signal::SIGTERM).code(), Some(0), "{}", daemon.log());
    }
}

#[test]
fn a_stop_is_clean_and_changes_no_mount() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::stopped(&Settings::default());
    let mounts = |daemon: &Daemon| {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = daemon.root().to_str().unwrap().to_owned();
        all.lines().filter(|line| line.contains(&root)).count()
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        daemon.restart();
        let (idle, client) = (daemon.client(), daemon.client());
        idle.list(&[]).unwrap();
        client.prepare(signal.as_str(), "", &Labels::new()).unwrap();
        assert_eq!(mounts(&daemon), 0);
        let begin = std::time::Instant::now();
        let status = daemon.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
        assert!(begin.elapsed() < Duration::from_secs(8), "clients that are connected do not hold it up");
        assert_eq!(mounts(&daemon), 0);
        assert!(daemon.log().contains("stopped"));
    }
    daemon.restart();
    assert_eq!(daemon.client().keys(), ["SIGINT", "SIGTERM"]);
}
