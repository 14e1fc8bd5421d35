//! The command line.

mod config;
mod containerd;
mod containers;
mod generate;
mod health;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{LogLevel, Overrides};

/// The configuration is wrong (sysexits.h, `EX_CONFIG`): a service manager need not try again.
const EXIT_CONFIG: u8 = 78;

/// A containerd snapshotter that starts containers from image layers that already lie unpacked on CernVM-FS, NFS or any
/// other directory.
#[derive(Parser)]
#[command(name = "cvmfs-snapshotter", version, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct Global {
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

#[derive(Subcommand)]
enum Command {
    /// Serve containerd; the default.
    Serve,
    /// Check or print the configuration.
    #[command(subcommand)]
    Config(config::Command),
    Health(health::Args),
    Containers(containers::Args),
    /// Read a directory; for `containers`.
    #[command(hide = true, name = crate::containers::LOOK)]
    Look {
        /// The directory.
        root: PathBuf,
    },
    /// Print the block that makes containerd use the daemon.
    ContainerdConfig(containerd::Args),
    /// Print completions for a shell.
    Completions(generate::Completions),
    /// Write the man pages.
    Man(generate::Man),
    /// Put the layers of an image into a directory from which they can be used in place.
    Unpack(crate::unpack::Args),
}

impl Global {
    fn load(&self) -> Result<crate::config::Config, crate::config::Error> {
        let Self { address, config, log_level, root } = self;
        let overrides = Overrides { address: address.clone(), root: root.clone(), log_level: *log_level };
        crate::config::Config::load(config.as_deref(), &overrides)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&global),
        Command::Config(command) => config::run(&global, &command),
        Command::Health(args) => health::run(&global, &args),
        Command::Containers(args) => containers::run(&global, &args),
        Command::Look { root } => ExitCode::from(crate::containers::look(&root)),
        Command::ContainerdConfig(args) => containerd::run(&global, &args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::Unpack(args) => match crate::unpack::main(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
    }
}

/// Says why, where there is no log.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("cvmfs-snapshotter: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
