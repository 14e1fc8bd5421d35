//! Runs `mock-cvmfs`, the stand-in for a CernVM-FS client, for a test, and cleans up after it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::programs;
use crate::wait::{LIMIT, eventually};

/// What the mock is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The repository's name.
    pub fqrn: String,
    /// The first revision.
    pub revision: u64,
    /// Show the catalog files of a publisher with CVMFS_AUTOCATALOGS.
    pub autocatalogs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fqrn: "test.cern.ch".into(), revision: 1, autocatalogs: false }
    }
}

/// A mounted mock. Dropping it leaves neither process nor mount, whatever state it is in; if the whole test program dies,
/// the mock sees the end of its standard input and goes too.
pub struct Mock {
    child: Child,
    backing: PathBuf,
    mountpoint: PathBuf,
    options: Options,
    directory: TempDir,
}

impl Mock {
    /// Serves `backing` at `mountpoint`, an existing directory, and returns when it is mounted.
    pub fn start(backing: &Path, mountpoint: &Path, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = spawn(backing, mountpoint, &options, &directory.path().join("control"));
        let mut mock =
            Self { child, backing: backing.to_owned(), mountpoint: mountpoint.to_owned(), options, directory };
        mock.wait_until_mounted();
        mock
    }

    /// The process, to send signals to.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the repository is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The socket that takes commands.
    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// A new revision without the layer.
    pub fn hide(&self, digest: &str) {
        self.command(json!({ "cmd": "hide", "layer": digest }));
    }

    /// A new revision with the layer.
    pub fn show(&self, digest: &str) {
        self.command(json!({ "cmd": "show", "layer": digest }));
    }

    /// A new revision in which the layer has another catalog.
    pub fn republish(&self, digest: &str) {
        self.command(json!({ "cmd": "republish", "layer": digest }));
    }

    /// A new revision: what was added to the backing directory becomes visible at once. Returns its number.
    pub fn revision(&self) -> u64 {
        self.command(json!({ "cmd": "revision" }))["revision"].as_u64().unwrap()
    }

    /// The server is unreachable: what needs a catalog that was not loaded before answers `errno`; `none` ends it.
    pub fn fail(&self, errno: &str) {
        self.command(json!({ "cmd": "fail", "errno": errno }));
    }

    /// As [`Self::fail`] for one layer, whether it was loaded or not.
    pub fn fail_layer(&self, errno: &str, digest: &str) {
        self.command(json!({ "cmd": "fail", "errno": errno, "layer": digest, "loaded": true }));
    }

    /// Answers nothing any more. Callers wait, killable, until [`Self::unhang`] or [`Self::kill`].
    pub fn hang(&self) {
        self.command(json!({ "cmd": "hang" }));
    }

    /// Ends [`Self::hang`]: the requests that waited are answered.
    pub fn unhang(&self) {
        self.command(json!({ "cmd": "unhang" }));
    }

    /// Delays each request; zero ends it.
    pub fn slow(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap();
        self.command(json!({ "cmd": "slow", "ms": milliseconds }));
    }

    /// The requests since the last [`Self::reset_stats`]: `total`, `operations` by name, `layers` by digest.
    pub fn stats(&self) -> Value {
        self.command(json!({ "cmd": "stats" }))["counts"].clone()
    }

    /// As [`Self::stats`], and counts from zero again.
    pub fn reset_stats(&self) -> Value {
        self.command(json!({ "cmd": "stats", "reset": true }))["counts"].clone()
    }

    /// The number of requests since the last [`Self::reset_stats`].
    pub fn requests(&self) -> u64 {
        self.stats()["total"].as_u64().unwrap()
    }

    /// Client and watchdog die: ENOTCONN, until [`Self::unmount`] or [`Self::remount`].
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Unmounts lazily: what is in use lives on while the process does.
    pub fn unmount(&mut self) {
        if self.is_running() {
            self.command(json!({ "cmd": "unmount" }));
        } else {
            umount2(&self.mountpoint, MntFlags::MNT_DETACH).unwrap();
        }
    }

    /// Mounts again, after [`Self::unmount`] in the same process, after [`Self::kill`] in a new one.
    pub fn remount(&mut self) {
        if self.is_running() {
            self.command(json!({ "cmd": "remount" }));
            return;
        }
        let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
        self.child = spawn(&self.backing, &self.mountpoint, &self.options, &self.control());
        self.wait_until_mounted();
    }

    /// Unmounts and ends the process, as `umount` of a repository that nobody uses.
    pub fn quit(&mut self) {
        self.command(json!({ "cmd": "quit" }));
        self.child.wait().unwrap();
    }

    /// Sends any command; panics unless the answer is `ok`.
    pub fn command(&self, command: Value) -> Value {
        let answer = self.try_command(&command).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }

    fn try_command(&self, command: &Value) -> io::Result<Value> {
        let mut stream = UnixStream::connect(self.control())?;
        stream.set_read_timeout(Some(LIMIT))?;
        writeln!(stream, "{command}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait_until_mounted(&mut self) {
        // The socket is answered as soon as it is mounted.
        eventually("the mock serves", || {
            assert!(self.is_running(), "the mock does not start");
            self.try_command(&json!({ "cmd": "ping" })).is_ok()
        });
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // So that it reaps the process that holds it (see its module `mounts`); SIGKILL alone would free callers too.
        let _ = self.try_command(&json!({ "cmd": "unhang" }));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
    }
}

/// The names of a process's threads that wait in the kernel for an answer of FUSE. A mock that hangs does not see who
/// waits for it: it takes no request.
pub fn waiting_in_fuse(process: Pid) -> Vec<String> {
    // A process that has ended waits for nothing.
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let of = |task: std::fs::DirEntry| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        // "request_wait_answer", "fuse_simple_request" or the like; the name of the call below it differs by version.
        read("stack").contains("fuse").then(|| read("comm").trim().to_owned())
    };
    tasks.flatten().filter_map(of).collect()
}

fn spawn(backing: &Path, mountpoint: &Path, options: &Options, control: &Path) -> Child {
    let mut command = Command::new(programs::helper("mock-cvmfs"));
    command.arg("--backing").arg(backing).arg("--mountpoint").arg(mountpoint).arg("--control").arg(control);
    command.arg("--fqrn").arg(&options.fqrn).arg("--revision").arg(options.revision.to_string()).arg("--until-eof");
    if options.autocatalogs {
        command.arg("--autocatalogs");
    }
    let _ = std::fs::remove_file(control);
    // Ctrl-C is for whoever uses the mock: they may need it until they have cleaned up.
    command.process_group(0).stdin(Stdio::piped()).spawn().unwrap()
}
