//! What all commands share: the options that beat the configuration file, and how a failure is told.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Error, LogLevel, Overrides};

/// The configuration is wrong (sysexits.h, `EX_CONFIG`): a service manager need not try again.
pub(super) const EXIT_CONFIG: u8 = 78;

#[derive(Clone, clap::Args)]
pub(super) struct Global {
    /// The unix socket that containerd connects to.
    #[arg(long, value_name = "SOCKET", global = true)]
    address: Option<PathBuf>,
    /// The configuration file [default: /etc/containerd-cvmfs-grpc/config.toml, if it is there].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The least severity that is logged.
    #[arg(long, value_enum, value_name = "LEVEL", global = true)]
    log_level: Option<LogLevel>,
    /// The state directory.
    #[arg(long, value_name = "DIRECTORY", global = true)]
    root: Option<PathBuf>,
}

impl Global {
    /// The configuration in effect.
    pub(super) fn load(&self) -> Result<Config, Error> {
        let Self { address, config, log_level, root } = self;
        let overrides = Overrides { address: address.clone(), root: root.clone(), log_level: *log_level };
        Config::load(config.as_deref(), &overrides)
    }
}

/// Says why, where there is no log.
pub(super) fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("cvmfs-snapshotter: {error}");
    ExitCode::from(code)
}
