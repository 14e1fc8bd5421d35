//! `config check` and `config dump`.

use std::process::ExitCode;

use super::global::{EXIT_CONFIG, Global, fail};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Check the configuration without starting.
    Check,
    /// Print the configuration in effect: file, flags and defaults.
    Dump,
}

pub(super) fn run(global: &Global, command: &Command) -> ExitCode {
    match (global.load(), command) {
        (Err(error), _) => fail(&error, EXIT_CONFIG),
        (Ok(_), Command::Check) => {
            println!("the configuration is valid");
            ExitCode::SUCCESS
        }
        (Ok(config), Command::Dump) => {
            print!("{}", config.to_toml());
            ExitCode::SUCCESS
        }
    }
}
