//! The states of a repository, and what an operator does about each.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;

/// Why a repository, or a layer in it, cannot be used now.
///
/// A repository that is not mounted looks like one that does not have the layer, and one whose client died still
/// answers a plain `stat` for a minute; the states are told apart by `statfs` and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The path is missing, or a plain directory without the marks of the repository.
    NotMounted(&'static str),
    /// The process that serves the file system is gone (ENOTCONN).
    Disconnected,
    /// The client is there, but cannot read its data (EIO).
    Unreachable,
    /// No answer for at least this long.
    Hung(Duration),
    /// It answers, but not everything that was asked in this time.
    Slow(Duration),
    /// Any other error of a call.
    Failed(&'static str, Errno),
}

impl Fault {
    /// The fault that the failure of a call stands for.
    pub(super) fn of(call: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::ENOTCONN | Errno::ECONNABORTED => Self::Disconnected,
            Errno::EIO => Self::Unreachable,
            other => Self::Failed(call, other),
        }
    }

    /// Its short name, which never changes: for metrics and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotMounted(_) => "not-mounted",
            Self::Disconnected => "disconnected",
            Self::Unreachable => "unreachable",
            Self::Hung(_) => "hung",
            Self::Slow(_) => "slow",
            Self::Failed(..) => "failed",
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self, path: &std::path::Path) -> String {
        let path = path.display();
        match self {
            Self::NotMounted(_) => format!("mount it (try `ls {path}`, `mount | grep {path}`)"),
            Self::Disconnected => format!("its client died: `umount -l {path}` and mount it again"),
            Self::Unreachable => "check the network, the proxies and the client's log".to_owned(),
            Self::Hung(_) => format!(
                "check its client and its network; `umount -l {path}` and mount it again if it does not come back"
            ),
            Self::Slow(_) => "its cache may be cold: try again, or raise timeouts.markers".to_owned(),
            Self::Failed(..) => format!("check {path}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted(why) => write!(f, "is not mounted ({why})"),
            Self::Disconnected => f.write_str("is disconnected (its client is not running)"),
            Self::Unreachable => f.write_str("cannot read its data (input/output error)"),
            Self::Hung(time) => write!(f, "does not answer (waited {:.1} s)", time.as_secs_f32()),
            Self::Slow(time) => write!(f, "is slow (not all answers came within {:.1} s)", time.as_secs_f32()),
            Self::Failed(call, errno) => write!(f, "fails: {call}: {}", errno.desc()),
        }
    }
}

/// What is known of a repository from the last time that it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not asked yet.
    Unknown,
    /// It answers.
    Healthy,
    /// It cannot be used.
    Faulty(Fault),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("has not been asked yet"),
            Self::Healthy => f.write_str("is healthy"),
            Self::Faulty(fault) => fault.fmt(f),
        }
    }
}
