//! A snapshot depends on a layer that is in no repository now.

use std::fmt;
use std::path::PathBuf;

use super::expected_chain::Mismatch;
use crate::digest::Digest;
use crate::markers::WalkError;
use crate::repository::Fault;

/// A snapshot needs a layer that is in no repository now.
#[derive(Debug)]
pub struct Unavailable {
    /// Which layer.
    pub layer: Digest,
    /// Where each repository stands: name, path and cause.
    pub causes: Vec<(String, PathBuf, Cause)>,
}

/// Why a repository does not serve a layer that it is needed for.
#[derive(Debug, Clone)]
pub enum Cause {
    /// It is healthy and does not have it.
    Missing,
    /// The repository, or the layer in it, cannot be used.
    Fault(Fault),
    /// What it has is not what the snapshot was made of.
    Mismatch(Mismatch),
    /// Its deletions cannot be read.
    Markers(WalkError),
    /// What hides its deleted files cannot be read or kept on the local disk.
    LocalDisk(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not have it"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::Markers(error) => write!(f, "serves the layer, but its deletions cannot be read: {error}"),
            Self::LocalDisk(error) => write!(f, "serves the layer, but this host cannot use it: {error}"),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} cannot be used now", self.layer)?;
        if self.causes.is_empty() {
            return f.write_str(": no repository is configured; name the one that it was published in");
        }
        for (name, path, cause) in &self.causes {
            write!(f, "; repository {name:?} at {} {cause}", path.display())?;
        }
        f.write_str("; remedy: ")?;
        let remedies = self.causes.iter().filter_map(|(_, path, cause)| match cause {
            Cause::Fault(fault) => Some(fault.remedy(path)),
            Cause::Markers(WalkError::TimeOut(_)) => Some("try again, or raise timeouts.markers".to_owned()),
            Cause::LocalDisk(_) => Some("check the disk of the state directory and the snapshotter's log".to_owned()),
            Cause::Missing | Cause::Mismatch(_) | Cause::Markers(_) => None,
        });
        match remedies.collect::<Vec<_>>().as_slice() {
            [] => f.write_str("publish the layer again, or remove the image and pull it again"),
            remedies => f.write_str(&remedies.join("; ")),
        }
    }
}
