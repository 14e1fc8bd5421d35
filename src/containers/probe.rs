//! Whether a container's layers still answer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use nix::errno::Errno;
use serde::Serialize;

/// The command that looks at one overlay.
pub const LOOK: &str = "look";
/// From one look at a process to the next.
const POLL: Duration = Duration::from_millis(5);

/// Whether the layers of a container answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum Health {
    /// Nobody asked.
    Unknown,
    /// All of them answer.
    Alive,
    /// One of them does not, and never will: the container has to be started again.
    Dead(String),
    /// One of them does not answer now.
    Hung,
    /// Looking at it fails, for another reason.
    Failed(String),
}

impl Health {
    /// Whether the container cannot be used as it is.
    pub fn is_bad(&self) -> bool {
        !matches!(self, Self::Alive | Self::Unknown)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Alive => f.write_str("alive"),
            Self::Dead(why) => write!(f, "dead ({why})"),
            Self::Hung => f.write_str("does not answer"),
            Self::Failed(why) => write!(f, "fails ({why})"),
        }
    }
}

/// Looks at all of these overlays, each in a process of its own. One that has not answered after `limit` hangs.
///
/// Not in threads: a call that a dead server has taken cannot be interrupted, and a process does not end before its threads
/// do. A process that hangs is killed and left behind; it ends as soon as the kernel lets it.
pub(super) fn all(roots: &[PathBuf], limit: Duration) -> Vec<Health> {
    let deadline = Instant::now() + limit;
    let children: Vec<_> = roots.iter().map(|root| begin(root)).collect();
    let wait = |child: io::Result<Child>| match child {
        Ok(child) => wait(child, deadline),
        Err(error) => Health::Failed(error.to_string()),
    };
    children.into_iter().map(wait).collect()
}

fn begin(root: &Path) -> io::Result<Child> {
    let mut look = Command::new("/proc/self/exe");
    look.arg(LOOK).arg(root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

#[expect(clippy::disallowed_methods, reason = "it runs on a thread of its own, in a command")]
fn wait(mut child: Child, deadline: Instant) -> Health {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return health(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) => {
                // If it cannot be killed it has just ended.
                let _ = child.kill();
                return Health::Hung;
            }
            Err(error) => return Health::Failed(error.to_string()),
        }
    }
}

fn health(status: ExitStatus) -> Health {
    match status.code() {
        Some(0) => Health::Alive,
        Some(code) => {
            let errno = Errno::from_raw(code);
            let why = errno.desc().to_lowercase();
            match errno {
                Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ESTALE => Health::Dead(why),
                _ => Health::Failed(why),
            }
        }
        None => Health::Failed(status.to_string()),
    }
}

/// What the process does: it reads the root directory, which overlayfs then opens in every layer. The exit code is an
/// errno(3).
pub fn look(root: &Path) -> u8 {
    let read = fs::read_dir(root).and_then(|mut entries| entries.try_for_each(|entry| entry.map(|_| ())));
    match read {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().and_then(|errno| errno.try_into().ok()).unwrap_or(Errno::EIO as u8),
    }
}
