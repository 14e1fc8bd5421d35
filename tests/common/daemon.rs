//! The daemon under test.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::output::{Output, run};
use super::sandbox::{Process, Sandbox};

/// What the unit file gives the daemon, no more.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid";
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon, with its folder, socket and configuration in a sandbox.
pub struct Daemon<'a> {
    sandbox: &'a Sandbox,
    dir: PathBuf,
    process: Process,
}

impl<'a> Daemon<'a> {
    /// Starts the daemon with this configuration, and waits until it listens.
    pub fn start(sandbox: &'a Sandbox, config: &str) -> Self {
        Self::start_in(sandbox, "snapshotter", config)
    }

    /// As [`Daemon::start`], for one of several in a sandbox: each has a folder of its own there.
    pub fn start_in(sandbox: &'a Sandbox, folder: &str, config: &str) -> Self {
        let dir = sandbox.mkdir(folder);
        std::fs::write(dir.join("config.toml"), config).expect("the configuration");
        let process = spawn(sandbox, &dir, &program());
        Self { sandbox, dir, process }
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// The folder with its state.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The process of the daemon.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends it a signal.
    pub fn kill(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Replaces the configuration, for the next start.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.dir.join("config.toml"), config).expect("the configuration");
    }

    /// Starts it again, after its end in good order unless it was killed before.
    pub fn restart(&mut self) {
        self.process.stop().expect("the daemon ends when it is asked to");
        self.process = spawn(self.sandbox, &self.dir, &program());
    }

    /// Starts another program in its place, as an upgrade does.
    pub fn upgrade(&mut self, program: &Path) {
        self.process.stop().expect("the daemon ends when it is asked to");
        self.process = spawn(self.sandbox, &self.dir, program);
    }

    /// Our program with this configuration, as an operator runs it: `args` name the command.
    pub fn command(&self, args: &[&str]) -> Output {
        let (root, config) = (self.root(), self.dir.join("config.toml"));
        let mut all = vec!["--root".as_ref(), root.as_os_str(), "--config".as_ref(), config.as_os_str()];
        all.extend(args.iter().map(std::ffi::OsStr::new));
        run(program(), &all, "/usr/bin:/bin", START_LIMIT)
    }

    /// Starts it, and returns how it ended: for one that must refuse to serve.
    pub fn refuse(&mut self) -> std::process::ExitStatus {
        self.process.stop();
        self.process = self.sandbox.spawn("snapshotter", command(&self.dir, &program()));
        self.process.wait(START_LIMIT).expect("it refuses to serve")
    }

    /// The file with what all its runs printed.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// What all its runs printed so far.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}

/// Our program. Cargo says where it is to tests; to an example, which lies in a folder beside it, it does not.
pub fn program() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_cvmfs-snapshotter") {
        Some(path) => path.into(),
        None => {
            let example = std::env::current_exe().expect("the path of this program");
            let path = example.ancestors().nth(2).expect("the folder of the target").join("cvmfs-snapshotter");
            assert!(path.exists(), "{} is not there: run cargo build", path.display());
            path
        }
    }
}

fn spawn(sandbox: &Sandbox, dir: &Path, program: &Path) -> Process {
    let process = sandbox.spawn("snapshotter", command(dir, program));
    let socket = dir.join("s");
    process.wait_for("the daemon listens", START_LIMIT, || UnixStream::connect(&socket).is_ok());
    process
}

fn command(dir: &Path, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    command.args([format!("--bounding-set={CAPABILITIES}"), format!("--inh-caps={CAPABILITIES}")]);
    command.arg(program);
    command.arg("--address").arg(dir.join("s")).arg("--root").arg(dir.join("root"));
    command.arg("--config").arg(dir.join("config.toml")).args(["--log-level", "debug"]);
    command
}
