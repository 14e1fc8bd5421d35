//! Life with systemd: what it does with the daemon, and what the daemon tells it. No systemd is needed.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{pause, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cvmfs-snapshotter");
/// Far more than anything here takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory with a configuration, a socket for notifications and a daemon.
struct Scratch {
    directory: tempfile::TempDir,
    notifications: UnixDatagram,
    daemon: Option<Child>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Scratch {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let notifications = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notifications.set_read_timeout(Some(LIMIT)).unwrap();
        let scratch = Self { directory, notifications, daemon: None };
        scratch.configure(config);
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Starts the daemon as a service manager does; with `inherited` as its socket.
    fn start(&mut self, inherited: Option<UnixListener>, watchdog: Option<Duration>) {
        // The shell is the process that becomes the daemon: the protocol names its number.
        let script = match inherited {
            Some(_) => r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#,
            None => r#"exec "$@""#,
        };
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", PROGRAM, "--config"]).arg(self.path("config.toml"));
        command.arg("--root").arg(self.path("root")).arg("--address").arg(self.path("s.sock"));
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command.stdin(inherited.map_or(Stdio::null(), |listener| Stdio::from(OwnedFd::from(listener))));
        command.stderr(std::fs::File::create(self.path("log")).unwrap());
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        self.daemon = Some(command.spawn().unwrap());
    }

    /// The next message to the service manager.
    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.notifications.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}: {}", self.log()));
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.daemon.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn wait_for_log(&self, text: &str, times: usize) {
        let is_there = wait_until(LIMIT, || self.log().matches(text).count() >= times);
        assert!(is_there, "no {text:?} in the log:\n{}", self.log());
    }

    fn is_healthy(&self) -> bool {
        self.is_healthy_by(&self.path("config.toml"))
    }

    /// Asked with this configuration file.
    fn is_healthy_by(&self, config: &Path) -> bool {
        let mut command = Command::new(PROGRAM);
        command.arg("health").arg("--config").arg(config).arg("--address").arg(self.path("s.sock"));
        command.output().unwrap().status.success()
    }

    /// Sends SIGTERM and returns the exit code.
    fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.daemon.take().unwrap().wait().unwrap().code()
    }
}

fn repository(name: &str, path: &Path) -> String {
    format!("[[repositories]]\nname = '{name}'\npath = '{}'\nkind = 'directory'\n", path.display())
}

#[test]
fn it_is_not_ready_before_it_has_answered_itself() {
    let mut scratch = Scratch::new(&repository("none", Path::new("/nonexistent")));
    let listener = UnixListener::bind(scratch.path("s.sock")).unwrap();
    std::fs::rename(scratch.path("s.sock"), scratch.path("elsewhere")).unwrap();
    scratch.start(Some(listener), None);
    scratch.wait_for_log("the daemon does not answer itself", 1);
    std::fs::rename(scratch.path("elsewhere"), scratch.path("s.sock")).unwrap();
    assert_eq!(scratch.told(), "READY=1");
    assert!(scratch.log().contains("the daemon answers itself now"), "told before that: {}", scratch.log());
}

#[test]
fn a_configuration_that_cannot_be_read_now_holds_nobody_up() {
    let config = repository("none", Path::new("/nonexistent"));
    let mut scratch = Scratch::new(&config);
    let other = scratch.path("other.toml");
    std::fs::copy(scratch.path("config.toml"), &other).unwrap();
    scratch.start(None, None);
    assert_eq!(scratch.told(), "READY=1");
    // As a file on a server that does not answer: whoever reads it waits.
    std::fs::remove_file(scratch.path("config.toml")).unwrap();
    nix::unistd::mkfifo(&scratch.path("config.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    scratch.signal(Signal::SIGHUP);
    let mut pipe = None;
    testkit::eventually("it reads the pipe", || {
        let opened =
            std::fs::File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(scratch.path("config.toml"));
        // ENXIO: nobody reads it yet.
        pipe = opened.map_err(|error| assert_eq!(error.raw_os_error(), Some(nix::libc::ENXIO))).ok();
        pipe.is_some()
    });
    let mut pipe = pipe.unwrap();
    assert!(scratch.is_healthy_by(&other), "{}", scratch.log());
    pipe.write_all(config.as_bytes()).unwrap();
    drop(pipe);
    scratch.wait_for_log("the configuration was reloaded", 1);
    assert_eq!(scratch.stop(), Some(0));
}

#[test]
fn it_is_ready_when_it_answers_and_says_when_it_stops() {
    let mut scratch = Scratch::new(&repository("none", Path::new("/nonexistent")));
    scratch.start(None, None);
    assert_eq!(scratch.told(), "READY=1");
    assert!(scratch.is_healthy(), "{}", scratch.log());
    assert!(!scratch.log().contains("does not answer itself"), "{}", scratch.log());
    assert_eq!(scratch.stop(), Some(0));
    assert_eq!(scratch.told(), "STOPPING=1");
    assert!(!scratch.is_healthy());
}

#[test]
fn the_socket_of_a_socket_unit_is_used_and_outlives_the_daemon() {
    let mut scratch = Scratch::new(&repository("none", Path::new("/nonexistent")));
    let listener = UnixListener::bind(scratch.path("s.sock")).unwrap();
    for _ in 0..2 {
        scratch.start(Some(listener.try_clone().unwrap()), None);
        assert_eq!(scratch.told(), "READY=1");
        assert!(scratch.is_healthy(), "{}", scratch.log());
        assert_eq!(scratch.stop(), Some(0));
        assert_eq!(scratch.told(), "STOPPING=1");
        assert!(scratch.path("s.sock").exists(), "the socket is not the daemon's to remove");
    }
}

#[test]
fn the_watchdog_is_told_as_long_as_the_daemon_works() {
    let mut scratch = Scratch::new(&repository("none", Path::new("/nonexistent")));
    scratch.start(None, Some(Duration::from_millis(400)));
    assert_eq!(scratch.told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(scratch.told(), "WATCHDOG=1");
    }
    // Stopped, it is as good as hung: nothing may tell in its place.
    scratch.signal(Signal::SIGSTOP);
    scratch.notifications.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut buffer = [0; 64];
    while scratch.notifications.recv(&mut buffer).is_ok() {}
    scratch.signal(Signal::SIGCONT);
    scratch.notifications.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(scratch.told(), "WATCHDOG=1");
    assert_eq!(scratch.stop(), Some(0));
}

#[test]
fn sighup_reloads_and_a_bad_file_changes_nothing() {
    let first = repository("first", Path::new("/nonexistent/1"));
    let mut scratch = Scratch::new(&format!("log-level = 'info'\n{first}"));
    scratch.start(None, None);
    assert_eq!(scratch.told(), "READY=1");
    assert!(scratch.log().contains("configured repository=\"first\""), "{}", scratch.log());

    scratch.configure("log-level = 'loud'");
    scratch.signal(Signal::SIGHUP);
    scratch.wait_for_log("the old one stays in effect", 1);
    assert!(scratch.log().contains("log-level = 'loud'"), "the line at fault is shown:\n{}", scratch.log());
    assert!(Path::new(&scratch.path("s.sock")).exists());

    let second = repository("second", Path::new("/nonexistent/2"));
    scratch.configure(&format!("log-level = 'info'\n{first}{second}"));
    scratch.signal(Signal::SIGHUP);
    scratch.wait_for_log("configuration was reloaded", 1);
    assert!(scratch.log().contains("configured repository=\"second\""), "{}", scratch.log());
    assert_eq!(scratch.log().matches("configured repository=\"first\"").count(), 1, "the first one is kept");

    scratch.configure(&format!("log-level = 'error'\n{first}"));
    scratch.signal(Signal::SIGHUP);
    // "reloaded" is below the new level; that the daemon got it shows in the requests that are logged no more.
    let quiet = || {
        let before = scratch.log().len();
        scratch.signal(Signal::SIGHUP);
        pause(Duration::from_millis(200));
        scratch.log().len() == before
    };
    assert!(wait_until(LIMIT, quiet), "{}", scratch.log());
    assert_eq!(scratch.stop(), Some(0));
}

#[test]
fn a_request_that_runs_at_the_stop_does_not_keep_the_daemon() {
    let mut scratch = Scratch::new(&repository("none", Path::new("/nonexistent")));
    scratch.start(None, None);
    assert_eq!(scratch.told(), "READY=1");
    // A client that is connected and says nothing.
    let _idle = std::os::unix::net::UnixStream::connect(scratch.path("s.sock")).unwrap();
    let begin = Instant::now();
    assert_eq!(scratch.stop(), Some(0));
    assert!(begin.elapsed() < LIMIT);
}

#[test]
fn the_man_page_and_the_completions_are_made_of_the_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Command::new(PROGRAM).args(args).output().unwrap();
    assert!(run(&["man", directory.path().to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(directory.path().join("cvmfs-snapshotter.1")).unwrap();
    assert!(page.contains("log\\-level") && page.contains("unpack"), "{page}");
    assert!(directory.path().join("cvmfs-snapshotter-unpack.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run(&["completions", shell]).stdout).unwrap();
        assert!(script.contains("containerd-config"), "{shell}");
    }
}
