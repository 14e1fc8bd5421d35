//! The command line.

mod config;
mod containerd;
mod containers;
mod generate;
mod global;
mod health;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use global::{Global, fail};

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
        Command::Completions(args) => generate::completions(&args, Arguments::command()),
        Command::Man(args) => generate::man(&args, Arguments::command()),
        Command::Unpack(args) => match crate::unpack::main(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
