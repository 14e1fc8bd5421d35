//! A stand-in for a CernVM-FS client: it serves a directory with the layout of a repository, read-only, through FUSE,
//! and lies as the real client does. A control socket makes it fail in the ways the real one fails.
//!
//! ```text
//! mock-cvmfs --backing DIR --mountpoint DIR --control SOCKET
//! echo '{"cmd":"hang"}' | socat - UNIX:SOCKET
//! ```
//!
//! | file | what it is for |
//! |---|---|
//! | `layout` | which layer a path belongs to |
//! | `backing` | the directory that is served: inodes, attributes, the catalog files that only the publisher adds |
//! | `catalog` | which catalog a path belongs to, and the extended attributes |
//! | `switches` | what the control socket changes: hidden layers, failures, delay, hang |
//! | `filesystem` | the FUSE requests |
//! | `mounts` | mounting, unmounting, what the kernel has to forget |
//! | `control` | the socket |
//!
//! Killing the process with SIGKILL is what killing the client is: ENOTCONN until somebody unmounts it.

mod backing;
mod catalog;
mod control;
mod filesystem;
mod layout;
mod mounts;
mod switches;

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Parser;

use filesystem::Mock;
use mounts::Mounts;

#[derive(Parser)]
#[command(about = "A stand-in for a CernVM-FS client, for tests and demos")]
struct Arguments {
    /// The directory to serve: `.layers/<xx>/<digest>/layerfs` and so on
    #[arg(long, required_unless_present = "poke")]
    backing: Option<PathBuf>,
    /// Where to mount it
    #[arg(long, required_unless_present = "poke")]
    mountpoint: Option<PathBuf>,
    /// The unix socket that takes commands, one JSON object a line
    #[arg(long, required_unless_present = "poke")]
    control: Option<PathBuf>,
    /// What `user.fqrn` says
    #[arg(long, default_value = "test.cern.ch")]
    fqrn: String,
    /// The first `user.revision`
    #[arg(long, default_value_t = 1)]
    revision: u64,
    /// Show the catalog files that a publisher with CVMFS_AUTOCATALOGS adds below a layer's root
    #[arg(long)]
    autocatalogs: bool,
    /// Unmount and exit when standard input ends, so that nothing outlives the parent
    #[arg(long)]
    until_eof: bool,
    /// Wait for the end of standard input, then ask for the state of this file system; see `mounts`
    #[arg(long, hide = true)]
    poke: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-cvmfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    if let Some(path) = arguments.poke {
        io::stdin().read_to_end(&mut Vec::new())?;
        nix::sys::statfs::statfs(&path)?;
        return Ok(());
    }
    let (Some(backing), Some(mountpoint), Some(control)) = (arguments.backing, arguments.mountpoint, arguments.control)
    else {
        return Err(io::Error::other("--backing, --mountpoint and --control are needed"));
    };
    let backing = backing::Backing::new(std::path::absolute(backing)?, arguments.autocatalogs);
    let mock = Mock::new(backing, arguments.fqrn, arguments.revision);
    let mounts = Arc::new(Mounts::new(mock, std::path::absolute(mountpoint)?));
    let listener = control::listen(&control)?;
    mounts.mount()?;
    if arguments.until_eof {
        let mounts = Arc::clone(&mounts);
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            mounts.quit();
        });
    }
    control::serve(&listener, &mounts)
}
