//! The daemon under test: the real program, with the capabilities that it needs and no other.

use std::fmt::Display;
use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::Client;
use crate::mounted::names;
use crate::output::{Output, run};
use crate::process::{Process, Processes};
use crate::programs;
use crate::sandbox::Sandbox;
use crate::wait::LIMIT;

/// All that the unit lets the daemon do beyond an ordinary user.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid";

/// A daemon with a socket, a configuration and a state directory of its own.
///
/// One that a test starts by itself ends when it is dropped. One in a [`Sandbox`] ends with the sandbox, after the
/// containerd that was started later.
pub struct Daemon {
    owner: Owner,
    folder: PathBuf,
    root: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// Who ends the process and removes the folder.
enum Owner {
    Itself { _folder: TempDir },
    Sandbox(Processes),
}

impl Daemon {
    /// Starts one with this configuration, and returns when it serves.
    pub fn start(config: &(impl Display + ?Sized)) -> Self {
        let mut daemon = Self::stopped(config);
        daemon.restart();
        daemon
    }

    /// One that is not running yet.
    pub fn stopped(config: &(impl Display + ?Sized)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        Self::make(folder, root, config)
    }

    /// As [`Self::stopped`], with its state on another file system.
    pub fn stopped_with_root(config: &(impl Display + ?Sized), root: &Path) -> Self {
        Self::make(tempfile::tempdir().expect("a temporary folder"), root.to_owned(), config)
    }

    fn make(folder: TempDir, root: PathBuf, config: &(impl Display + ?Sized)) -> Self {
        let path = folder.path().to_owned();
        let (socket, log) = (path.join("run/s.sock"), path.join("log"));
        let daemon = Self { owner: Owner::Itself { _folder: folder }, folder: path, root, socket, log, process: None };
        daemon.configure(config);
        daemon
    }

    /// Starts one in the folder `snapshotter` of a sandbox, and returns when it serves.
    pub fn start_in(sandbox: &Sandbox, config: &(impl Display + ?Sized)) -> Self {
        Self::start_in_folder(sandbox, "snapshotter", config)
    }

    /// As [`Self::start_in`], for one of several in a sandbox: each has a folder of its own there.
    pub fn start_in_folder(sandbox: &Sandbox, name: &str, config: &(impl Display + ?Sized)) -> Self {
        let folder = sandbox.mkdir(name);
        let (root, socket, log) = (folder.join("root"), folder.join("s"), sandbox.join(format!("{name}.log")));
        let mut daemon = Self { owner: Owner::Sandbox(sandbox.processes()), folder, root, socket, log, process: None };
        daemon.configure(config);
        daemon.restart();
        daemon
    }

    /// Replaces the configuration, for the next start.
    pub fn configure(&self, config: &(impl Display + ?Sized)) {
        fs::write(self.config(), config.to_string()).expect("the configuration");
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The folder with its state.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The folder with the directories of the snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Another file in its folder, for the test.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// The ids that have a directory, sorted.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = names(&self.snapshots()).iter().map(|name| name.parse().expect("an id")).collect();
        ids.sort_unstable();
        ids
    }

    /// The command that runs the program as on a node; the caller may add arguments.
    pub fn command(&self) -> Command {
        self.command_of(&programs::daemon())
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set",
            CAPABILITIES,
            "--inh-caps",
            "-all",
            "--ambient-caps",
            "-all",
            "--no-new-privs",
        ]);
        command.arg(program).arg("--config").arg(self.config());
        command.arg("--root").arg(&self.root).arg("--address").arg(&self.socket);
        command.env("GLIBC_TUNABLES", tunables());
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program with this configuration to its end, as an operator does: `args` name the command.
    pub fn run(&self, args: &[&str]) -> Output {
        let config = self.config();
        let mut all = vec!["--root".as_ref(), self.root.as_os_str(), "--config".as_ref(), config.as_os_str()];
        all.extend(args.iter().map(std::ffi::OsStr::new));
        run(programs::daemon(), &all, "/usr/bin:/bin", LIMIT)
    }

    /// Starts the process; it need not serve yet.
    pub fn spawn(&mut self) {
        self.spawn_program(&programs::daemon());
    }

    fn spawn_program(&mut self, program: &Path) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = self.command_of(program);
        let process = match &self.owner {
            Owner::Itself { .. } => Process::spawn(&self.log, command),
            Owner::Sandbox(processes) => {
                // So that Ctrl-C reaches the test only, which then ends all in the right order.
                command.args(["--log-level", "debug"]).process_group(0);
                let process = Process::spawn(&self.log, command);
                processes.add(&process);
                process
            }
        };
        self.process = Some(process);
    }

    /// Starts the process and waits until it serves. Ends it first if it runs.
    pub fn restart(&mut self) {
        self.upgrade(&programs::daemon());
    }

    /// As [`Self::restart`], with another program in its place.
    pub fn upgrade(&mut self, program: &Path) {
        self.end();
        self.spawn_program(program);
        let (process, socket) = (self.process().clone(), &self.socket);
        process.wait_for("the daemon serves", LIMIT, || UnixStream::connect(socket).is_ok());
    }

    /// In good order, unless the test has killed it before.
    fn end(&mut self) {
        let Some(process) = self.process.take() else { return };
        let status = process.stop().unwrap_or_else(|| panic!("it ignores SIGTERM: {}", self.log()));
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        assert!(status.success() || killed, "{status}: {}", self.log());
    }

    /// Starts it, and returns how it ended: for one that must refuse to serve.
    pub fn refuse(&mut self) -> ExitStatus {
        self.end();
        self.spawn();
        self.wait()
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Sends a signal, unless it has ended already.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// The process, which runs or has been killed.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it was started")
    }

    /// The process ID.
    pub fn pid(&self) -> Pid {
        self.process().pid()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let process = self.process.take().expect("it was started");
        process.wait(LIMIT).unwrap_or_else(|| {
            process.signal(Signal::SIGKILL);
            panic!("it does not end: {}", self.log())
        })
    }

    /// Whether the process is there.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.ended().is_none())
    }

    /// A client that is connected to it.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// What all its runs printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The file with the log.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The lines of the log that contain all of these.
    pub fn lines(&self, parts: &[&str]) -> Vec<String> {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let (Owner::Itself { .. }, Some(process)) = (&self.owner, self.process.take()) else { return };
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        process.signal(Signal::SIGTERM);
        process.wait(Duration::from_secs(2));
        process.signal(Signal::SIGKILL);
        process.wait(LIMIT);
    }
}

/// How the unit has the C library keep memory.
fn tunables() -> String {
    let unit = programs::sources().join("dist/systemd/cvmfs-snapshotter.service");
    let unit = fs::read_to_string(&unit).unwrap_or_else(|error| panic!("{}: {error}", unit.display()));
    let line = unit.lines().find_map(|line| line.strip_prefix("Environment=GLIBC_TUNABLES="));
    line.expect("a line of the unit").to_owned()
}
