//! The settings and their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) const DEFAULT_ADDRESS: &str = "/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock";
pub(super) const DEFAULT_ROOT: &str = "/var/lib/containerd-cvmfs-grpc";
pub(super) const DEFAULT_REPOSITORY: &str = "unpacked.cern.ch";
/// One step of a request to a repository. A healthy client answers in milliseconds, also over a slow network.
pub(super) const DEFAULT_PROBE: Duration = Duration::from_secs(2);
/// The first answer may have to wait for an automount; CernVM-FS mounts in some seconds.
pub(super) const DEFAULT_FIRST_MOUNT: Duration = Duration::from_secs(30);
/// A layer of 20 000 directories is walked in 5 s; containerd holds a lock meanwhile.
pub(super) const DEFAULT_MARKERS: Duration = Duration::from_secs(10);

/// The configuration in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// The unix socket that containerd connects to.
    pub address: PathBuf,
    /// The state directory.
    pub root: PathBuf,
    /// The least severity that is logged.
    pub log_level: LogLevel,
    /// The form of the log.
    pub log_format: LogFormat,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Where layers are looked for, in this order.
    pub repositories: Vec<Repository>,
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repository {
    /// Its name in messages; unique.
    pub name: String,
    /// The directory that `.layers` is in.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Whether layers are compared with the image.
    pub verify: Verify,
}

/// What a repository is, which decides how its health is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A CernVM-FS client's mount: a FUSE file system with the attribute `user.fqrn`.
    Cvmfs,
    /// Any other directory that has `.layers` in it: NFS, CephFS, a local disk.
    Directory,
}

/// Whether a layer is compared with the chain ID that it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Where the repository records the layer's diff ID; layers without a record are used as they are.
    #[default]
    IfKnown,
    /// Always: a layer without a record is downloaded.
    Required,
    /// Never.
    Off,
}

/// Time limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Timeouts {
    /// For one step of a request to a repository.
    #[serde(with = "humantime_serde")]
    pub probe: Duration,
    /// For the first answer of a repository, and for one that waits for an automount.
    #[serde(with = "humantime_serde")]
    pub first_mount: Duration,
    /// For finding the deleted files of a layer.
    #[serde(with = "humantime_serde")]
    pub markers: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { probe: DEFAULT_PROBE, first_mount: DEFAULT_FIRST_MOUNT, markers: DEFAULT_MARKERS }
    }
}

/// The least severity that is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// Each request.
    Debug,
    /// What happens to layers and repositories.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    #[serde(alias = "fatal", alias = "panic")]
    #[value(alias = "fatal", alias = "panic")]
    Error,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To journald, with fields, where standard error leads there; lines for people elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
