//! Whether what a container stands on still answers.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;

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

/// Looks at all of these overlays, each on a thread of its own. One that has not answered after `limit` hangs; its thread
/// does, too.
pub(super) fn all(roots: &[PathBuf], limit: Duration) -> Vec<Health> {
    let deadline = Instant::now() + limit;
    let answers: Vec<_> = roots.iter().map(|root| begin(root.clone())).collect();
    let wait = |answer: Result<mpsc::Receiver<Health>, std::io::Error>| match answer {
        Ok(answer) => answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or(Health::Hung),
        Err(error) => Health::Failed(error.to_string()),
    };
    answers.into_iter().map(wait).collect()
}

fn begin(root: PathBuf) -> std::io::Result<mpsc::Receiver<Health>> {
    let (send, answer) = mpsc::sync_channel(1);
    thread::Builder::new().name("look".to_owned()).spawn(move || send.send(look(&root)))?;
    Ok(answer)
}

/// Reads the root directory: overlayfs then opens it in every layer.
fn look(root: &Path) -> Health {
    let read = fs::read_dir(root).and_then(|mut entries| entries.try_for_each(|entry| entry.map(|_| ())));
    match read {
        Ok(()) => Health::Alive,
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw);
            let why = errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_lowercase());
            match errno {
                Some(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ESTALE) => Health::Dead(why),
                _ => Health::Failed(why),
            }
        }
    }
}
