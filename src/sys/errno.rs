//! Error numbers: between the types of the standard library and of `nix`.

use std::io;

use nix::errno::Errno;

/// The error number of a failed call; `UnknownErrno` if the error is none of the kernel's.
pub(crate) fn of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
