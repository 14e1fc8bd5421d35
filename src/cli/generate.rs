//! `completions` and `man`: made from the arguments themselves, for packagers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;

use super::global::fail;

#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub(super) struct Man {
    /// The directory that the pages are written to.
    directory: PathBuf,
}

pub(super) fn completions(args: &Completions, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut std::io::stdout());
    ExitCode::SUCCESS
}

pub(super) fn man(args: &Man, command: Command) -> ExitCode {
    let made =
        std::fs::create_dir_all(&args.directory).and_then(|()| clap_mangen::generate_to(command, &args.directory));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write man pages to {}: {error}", args.directory.display()), 1),
    }
}
