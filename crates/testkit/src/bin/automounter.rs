//! An automounter for one directory, which takes its time: `automounter PATH SOURCE SECONDS`.
//!
//! Whoever looks into PATH waits until SOURCE is bound to it, or fails if there is no SOURCE by then. What was mounted may
//! be unmounted at any time, and is mounted again for the next one. It ends, and takes its mounts away, when its standard
//! input ends. The protocol is version 5 of the kernel's autofs (include/uapi/linux/auto_fs.h).

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Pid, getpgrp, pipe, setpgid};

/// `struct autofs_v5_packet` on a machine of 64 bits; the token is its third word.
const PACKET_BYTES: usize = 304;
const TOKEN: std::ops::Range<usize> = 8..12;

mod ioctl {
    #![allow(unsafe_code, reason = "there is no safe interface to autofs")]

    use std::os::fd::RawFd;

    use nix::libc::c_int;

    nix::ioctl_write_int_bad!(ready, nix::request_code_none!(0x93, 0x60));
    nix::ioctl_write_int_bad!(fail, nix::request_code_none!(0x93, 0x61));

    /// Has those who wait go on: into what is mounted now, or with an error.
    pub(crate) fn answer(root: RawFd, token: c_int, is_mounted: bool) -> nix::Result<c_int> {
        // SAFETY: both take a number and no pointer.
        unsafe { if is_mounted { ready(root, token) } else { fail(root, token) } }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [path, source, seconds] = &arguments[..] else { return Err("automounter PATH SOURCE SECONDS".into()) };
    let delay = Duration::from_secs_f64(seconds.to_str().ok_or("a number")?.parse()?);
    // The kernel lets the group of the automounter through, and has all others wait.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    let (requests, kernel) = pipe()?;
    let data = format!("fd={},pgrp={},minproto=5,maxproto=5,direct", kernel.as_raw_fd(), getpgrp());
    mount(Some("test"), path, Some("autofs"), MsFlags::empty(), Some(data.as_str()))?;
    drop(kernel);
    let root = File::open(path)?;
    let (to, from) = (path.clone(), source.clone());
    std::thread::spawn(move || serve(requests, &root, &to, &from, delay));
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    Ok(())
}

fn serve(requests: OwnedFd, root: &File, path: &Path, source: &Path, delay: Duration) {
    let mut requests = File::from(requests);
    let mut packet = [0; PACKET_BYTES];
    while requests.read_exact(&mut packet).is_ok() {
        testkit::pause(delay);
        let result = mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        let token = i32::from_ne_bytes(packet[TOKEN].try_into().expect("four bytes"));
        if let Err(error) = ioctl::answer(root.as_raw_fd(), token, result.is_ok()) {
            eprintln!("automounter: {}: {error}", path.display());
        }
    }
}
