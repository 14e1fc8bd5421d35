//! A disk with a volatile cache, for the tests of power cuts: a file on FUSE that backs a loop device.
//!
//! What is written is kept in memory, and is on the medium once the kernel has asked for a flush. A cut throws away what
//! was written since, all of it or a random part, in blocks and in sectors of blocks: a real disk may have written any of
//! it, in any order. The kernel's loop device says that it has a volatile cache, so that file systems flush it as they do
//! with a real one.
//!
//! A program of its own, so that it can answer whatever happens to the test. It takes commands on its standard input, one
//! a line, and answers each with a line. It ends, and with it the mount, when the input ends.
//!
//! ```text
//! freeze           answer no request of the kernel any more
//! freeze-at-flush  the same from the next flush on, which is not carried out, or if none comes soon
//! cut SEED         throw away what is not on the medium; what the medium has is the next disk, `disk-<n>`
//! thaw             answer again; after a cut, the old disk goes on working in memory
//! fail on|off      fail every write and flush with EIO
//! fail TEXT        fail every write of data that have this text in them
//! stop             the disk's end
//! ```

mod filesystem;
mod medium;

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fuser::{Config, MountOption, Session};

use filesystem::{Disks, Failing};

#[derive(Parser)]
struct Arguments {
    /// An existing directory, in which the file with the disk appears
    mountpoint: PathBuf,
    /// The size of the disk
    bytes: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volatile-disk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let disks = Arc::new(Disks::new(arguments.bytes));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("volatile-disk".into())];
    let session = Session::new(filesystem::Served(Arc::clone(&disks)), &arguments.mountpoint, &config)?;
    let serving = session.spawn()?;
    answer("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let reply = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["freeze"] => disks.freeze(),
            ["freeze-at-flush"] => disks.freeze_at_flush(),
            ["cut", seed] => disks.cut(seed.parse().map_err(io::Error::other)?),
            ["thaw"] => disks.thaw(),
            ["fail", "on"] => disks.fail(Failing::All),
            ["fail", "off"] => disks.fail(Failing::Nothing),
            ["fail", text] => disks.fail(Failing::WritesOf(text.as_bytes().to_vec())),
            ["stop"] => break,
            _ => return Err(io::Error::other(format!("what is {line:?}?"))),
        };
        answer(&reply)?;
    }
    // Whoever waits for a request is told that the disk is gone.
    disks.thaw();
    drop(serving);
    Ok(())
}

fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
