//! The configuration: what the file, the flags and the defaults come to.
//!
//! The file is TOML. The keys `repository` and `absolute-mountpoint` are those of the Go daemon that this one replaces,
//! as are the defaults. Nothing is guessed: an unknown key or a value that cannot work is refused, with its line.

mod error;
mod file;
mod settings;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use settings::{Config, Kind, LogFormat, LogLevel, Repository, Timeouts, Verify};

/// Read if no other file is named.
pub const DEFAULT_FILE: &str = "/etc/containerd-cvmfs-grpc/config.toml";

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
