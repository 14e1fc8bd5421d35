//! Processes that a test starts, and their logs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{LIMIT, wait_until};

/// A process that writes into a log file.
#[derive(Clone)]
pub struct Process {
    child: Arc<Mutex<Child>>,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a process that writes into the file `log`, after what is in there already.
    pub fn spawn(log: &Path, mut command: Command) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("dup")).stderr(file);
        let child = command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}"));
        let pid = pid(child.id());
        Self { child: Arc::new(Mutex::new(child)), pid, log: log.to_owned() }
    }

    /// The process ID.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The file with what it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it printed so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, unless it still runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("wait for a child")
    }

    /// Sends a signal, unless it has ended already.
    pub fn signal(&self, signal: Signal) {
        // While we have not waited for it, its ID cannot have become another's.
        if self.ended().is_none() {
            kill(self.pid, signal).expect("signal a child");
        }
    }

    /// Waits for its end, at most until the limit.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        wait_until(limit, || self.ended().is_some());
        self.ended()
    }

    /// Ends it with SIGTERM; if that does not help with SIGKILL, and returns none.
    pub fn stop(&self) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        // A stopped process takes the signal only when it goes on.
        self.signal(Signal::SIGCONT);
        let status = self.wait(LIMIT);
        if status.is_none() {
            self.signal(Signal::SIGKILL);
            self.wait(LIMIT);
        }
        status
    }

    /// Waits for something that this process does, and panics with its log if it ends before or takes too long.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
        let in_time = wait_until(limit, || done() || self.ended().is_some());
        assert!(in_time && self.ended().is_none(), "{what}: {:?}; the log:\n{}", self.ended(), self.log_text());
    }
}

/// The processes of a sandbox, the first started first.
#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<Vec<Process>>>);

impl Processes {
    pub(crate) fn add(&self, process: &Process) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(process.clone());
    }

    pub(crate) fn all(&self) -> Vec<Process> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A process ID as signals take it.
pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().expect("process IDs are at most 2^22"))
}
