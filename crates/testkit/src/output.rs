//! Runs a command to its end, with a time limit.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// How it ended; 137 if it ran into its time limit.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    /// The standard error of a command that must fail.
    #[track_caller]
    pub fn err(self) -> String {
        assert!(!self.status.success(), "it should have failed: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a program with a prepared environment to its end, or kills it after the limit.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S], path: &str, limit: Duration) -> Output {
    // Files, as what a command leaves running may hold pipes open.
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    let mut command = Command::new("timeout");
    command.arg("--signal=KILL").arg(limit.as_secs().to_string()).arg(program).args(args).env("PATH", path);
    command.stdin(Stdio::null()).stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
    let status = command.status().expect("timeout, of coreutils");
    let text = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the output of a command");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let command = command.get_args().skip(2).map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Output { command, status, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}
