//! The configuration: what the file, the flags and the defaults come to.
//!
//! The file is TOML. The keys `repository` and `absolute-mountpoint` are those of the Go daemon that this one replaces,
//! as are the defaults. Nothing is guessed: an unknown key or a value that cannot work is refused, with its line.

mod error;
mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::Error;

use crate::repository::{Kind, Limits, Verify};

/// Read if no other file is named.
pub const DEFAULT_FILE: &str = "/etc/containerd-cvmfs-grpc/config.toml";
const DEFAULT_ADDRESS: &str = "/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock";
const DEFAULT_ROOT: &str = "/var/lib/containerd-cvmfs-grpc";
const DEFAULT_REPOSITORY: &str = "unpacked.cern.ch";
/// One step of a request to a repository. A healthy client answers in milliseconds, also over a slow network.
const DEFAULT_PROBE: Duration = Duration::from_secs(2);
/// The first answer may have to wait for an automount; CernVM-FS mounts in some seconds.
const DEFAULT_FIRST_MOUNT: Duration = Duration::from_secs(30);
/// A layer of 20 000 directories is walked in 5 s; containerd holds a lock meanwhile.
const DEFAULT_MARKERS: Duration = Duration::from_secs(10);

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

impl Timeouts {
    /// The limits that a repository has to keep.
    pub fn limits(&self) -> Limits {
        Limits { probe: self.probe, first_mount: self.first_mount }
    }
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

/// What the command line says; it beats the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--address`
    pub address: Option<PathBuf>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--log-level`
    pub log_level: Option<LogLevel>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// `file`: the one that the command line names, which must exist. Without it [`DEFAULT_FILE`] is read if it is there.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::Unreadable { path: path.to_owned(), source }),
        };
        Self::parse(path, &text, overrides)
    }

    /// The configuration that this text of a file comes to. `path` is for messages.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, Error> {
        let mut config = file::parse(path, text)?;
        let flag = |name: &'static str, value: &PathBuf| {
            file::check_path(value).map_err(|problem| Error::Flag { flag: name, problem })
        };
        if let Some(address) = &overrides.address {
            flag("--address", address)?;
            config.address.clone_from(address);
        }
        if let Some(root) = &overrides.root {
            flag("--root", root)?;
            config.root.clone_from(root);
        }
        if let Some(level) = overrides.log_level {
            config.log_level = level;
        }
        Ok(config)
    }

    /// The configuration as a file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|e| unreachable!("a configuration of plain data is TOML: {e}"))
    }
}

#[cfg(test)]
mod tests;
