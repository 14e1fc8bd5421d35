//! Holds a process at a system call, by means of strace.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use testkit::skip;
use testkit::{Daemon, eventually};

/// Longer than any test holds anything.
const DELAY: Duration = Duration::from_secs(60);

/// When a system call waits.
#[derive(Clone, Copy)]
pub(crate) enum When {
    /// Before it does anything.
    Before,
    /// When it has its result, which the program does not see yet.
    After,
}

/// System calls that wait.
#[derive(Clone, Copy)]
pub(crate) struct Hold {
    /// A set of strace(1), for example `?mkdir,?mkdirat`.
    pub(crate) calls: &'static str,
    pub(crate) when: When,
    /// How long they wait at most.
    pub(crate) limit: Duration,
}

impl Hold {
    /// Until all are let go on.
    pub(crate) fn until_dropped(calls: &'static str, when: When) -> Self {
        Self { calls, when, limit: DELAY }
    }
}

/// While this lives, system calls wait. Dropping it lets all go on.
pub(crate) struct Held {
    strace: Child,
    daemon: Pid,
    directory: TempDir,
}

impl Held {
    /// Each of these calls waits before it begins.
    pub(crate) fn at(daemon: &Daemon, calls: &'static str) -> Self {
        Self::holding(daemon, &[Hold::until_dropped(calls, When::Before)])
    }

    /// As [`Self::at`], at several points. A process has one tracer, so what is to go on earlier has a time limit.
    pub(crate) fn holding(daemon: &Daemon, holds: &[Hold]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let messages = fs::File::create(directory.path().join("messages")).unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &daemon.pid().to_string(), "-o", "/dev/null"]);
        let calls: Vec<&str> = holds.iter().map(|hold| hold.calls).collect();
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for Hold { calls, when, limit } in holds {
            let delay = match when {
                When::Before => "delay_enter",
                When::After => "delay_exit",
            };
            command.args(["-e", &format!("inject={calls}:{delay}={}", limit.as_micros())]);
        }
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages).spawn().unwrap();
        let mut held = Self { strace, daemon: daemon.pid(), directory };
        eventually("strace attaches", || {
            assert!(held.strace.try_wait().unwrap().is_none(), "{}", held.messages());
            held.messages().contains("attached")
        });
        held
    }

    /// How many threads are held. strace stops each of them at every system call, and lets it go on when it gets to
    /// that: only those count that stay stopped when it has nothing more to do.
    pub(crate) fn threads(&self) -> usize {
        let mut held = 0;
        eventually("strace rests", || {
            let before = self.rest();
            held = self.stopped();
            before.is_some() && before == self.rest()
        });
        held
    }

    /// How often strace was woken so far, if it sleeps now.
    fn rest(&self) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.strace.id())).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name));
        line("State:\tS")?;
        Some(format!("{:?} {:?}", line("voluntary_ctxt"), line("nonvoluntary_ctxt")))
    }

    /// How many threads are stopped now.
    fn stopped(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon)).unwrap().flatten();
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
        tasks.map(status).filter(|status| status.contains("\nState:\tt")).count()
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
    let can = testkit::is_root() && runs.is_ok_and(|status| status.success());
    if !can {
        skip::lacks("strace cannot trace here");
    }
    can
}
