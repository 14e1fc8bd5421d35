//! The program `cvmfs-snapshotter`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cvmfs_snapshotter::unpack;

/// Starts containers from image layers already unpacked on CernVM-FS, NFS or any directory
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Unpack(unpack::Args),
}

fn main() -> ExitCode {
    let Command::Unpack(args) = Cli::parse().command;
    match unpack::main(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cvmfs-snapshotter: {error}");
            ExitCode::FAILURE
        }
    }
}
