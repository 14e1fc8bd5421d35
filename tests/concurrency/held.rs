//! Holds a process at a system call, by means of strace.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::mock_support::skip::skip;
use crate::support::{Daemon, eventually};

/// Longer than any test holds anything.
const DELAY: Duration = Duration::from_secs(60);

/// While this lives, each system call of these names waits before it begins. Dropping it lets all go on.
pub(crate) struct Held {
    strace: Child,
    daemon: Pid,
    directory: TempDir,
}

impl Held {
    /// `calls`: a set of strace(1), for example `?mkdir,?mkdirat`.
    pub(crate) fn at(daemon: &Daemon, calls: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let messages = fs::File::create(directory.path().join("messages")).unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &daemon.pid().to_string(), "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:delay_enter={}", DELAY.as_micros())]);
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages).spawn().unwrap();
        let mut held = Self { strace, daemon: daemon.pid(), directory };
        eventually("strace attaches", || {
            assert!(held.strace.try_wait().unwrap().is_none(), "{}", held.messages());
            held.messages().contains("attached")
        });
        held
    }

    /// How many threads are held. strace stops each of them at every system call for a moment: those do not count.
    pub(crate) fn threads(&self) -> usize {
        let before = self.stopped();
        std::thread::sleep(Duration::from_millis(30));
        self.stopped().intersection(&before).count()
    }

    /// The threads that are stopped now, each with how often it stopped so far.
    fn stopped(&self) -> BTreeSet<(OsString, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon)).unwrap().flatten();
        let of = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let line = |name: &str| status.lines().find(|line| line.starts_with(name));
            line("State:\tt")?;
            Some((task.file_name(), format!("{:?} {:?}", line("voluntary_ctxt"), line("nonvoluntary_ctxt"))))
        };
        tasks.filter_map(of).collect()
    }

    fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("messages")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It detaches from all threads then.
        let _ = kill(Pid::from_raw(self.strace.id().try_into().unwrap()), Signal::SIGINT);
        let status = self.strace.wait();
        if std::thread::panicking() {
            eprintln!("strace: {status:?}\n{}", self.messages());
        }
    }
}

/// Whether strace can be used here; says so if not.
pub(crate) fn can_hold() -> bool {
    let runs = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let can = crate::support::is_root() && runs.is_ok_and(|status| status.success());
    if !can {
        skip("strace cannot trace here");
    }
    can
}
