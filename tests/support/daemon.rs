//! The daemon: the real binary, with the capabilities that it needs and no other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Client, LIMIT, eventually};

pub const BINARY: &str = env!("CARGO_BIN_EXE_cvmfs-snapshotter");

/// All that the daemon may do beyond an ordinary user.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid";

/// A configuration but for the paths of the daemon itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name, path, kind (`cvmfs`, `directory`) and further lines of each repository.
    pub repositories: Vec<(String, PathBuf, &'static str, String)>,
    pub probe: &'static str,
    pub first_mount: &'static str,
    pub markers: &'static str,
    pub log_level: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        // Generous: the machine may be busy with other tests.
        Self { repositories: Vec::new(), probe: "4s", first_mount: "8s", markers: "10s", log_level: "debug" }
    }
}

impl Settings {
    /// For repositories that hang: what is not answered within a second is not answered.
    pub fn impatient() -> Self {
        Self { probe: "1s", first_mount: "1500ms", ..Self::default() }
    }

    pub fn to_toml(&self) -> String {
        let mut text = format!("log-level = '{}'\n[timeouts]\n", self.log_level);
        for (name, value) in [("probe", self.probe), ("first-mount", self.first_mount), ("markers", self.markers)] {
            text += &format!("{name} = '{value}'\n");
        }
        for (name, path, kind, more) in &self.repositories {
            text += &format!("[[repositories]]\nname = '{name}'\npath = {path:?}\nkind = '{kind}'\n{more}\n");
        }
        text
    }
}

/// How the unit has the C library keep memory.
fn tunables() -> &'static str {
    let unit = include_str!("../../dist/systemd/cvmfs-snapshotter.service");
    unit.lines().find_map(|line| line.strip_prefix("Environment=GLIBC_TUNABLES=")).expect("in the unit")
}

/// A daemon on a socket and a state directory of its own. Dropping it ends the process.
pub struct Daemon {
    directory: TempDir,
    root: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one, and returns when it serves.
    pub fn start(settings: &Settings) -> Self {
        let mut daemon = Self::stopped(settings);
        daemon.restart();
        daemon
    }

    /// One that is not running yet.
    pub fn stopped(settings: &Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        Self::make(settings, directory, root)
    }

    /// As [`Self::stopped`], with its state on another file system.
    pub fn stopped_with_root(settings: &Settings, root: &Path) -> Self {
        Self::make(settings, tempfile::tempdir().unwrap(), root.to_owned())
    }

    fn make(settings: &Settings, directory: TempDir, root: PathBuf) -> Self {
        let daemon = Self { directory, root, child: None };
        daemon.configure(settings);
        daemon
    }

    pub fn configure(&self, settings: &Settings) {
        fs::write(self.config(), settings.to_toml()).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/s.sock")
    }

    /// The directory of a snapshot, or of a file in it.
    pub fn snapshots(&self) -> PathBuf {
        self.root().join("snapshots")
    }

    /// The ids that have a directory.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = super::names(&self.snapshots()).iter().map(|name| name.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// The command that runs the binary as on a node, with these arguments.
    pub fn command(&self) -> Command {
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
        command.arg(BINARY).arg("--config").arg(self.config());
        command.arg("--root").arg(self.root()).arg("--address").arg(self.socket());
        command.env("GLIBC_TUNABLES", tunables());
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process; it need not serve yet.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Starts the process and waits until it serves. Stops it first if it runs.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            let status = self.stop(Signal::SIGTERM);
            assert!(status.success(), "{status}: {}", self.log());
        }
        self.spawn();
        eventually("the daemon serves", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}: {}", self.log());
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id().try_into().unwrap())
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("it does not end: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket())
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// The lines of the log that contain all of these.
    pub fn lines(&self, parts: &[&str]) -> Vec<String> {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }

    /// Another file of the test.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
