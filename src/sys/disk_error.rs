//! Remedies for errors of the local disk.

use std::io::{self, ErrorKind};

use nix::errno::Errno;

/// What to do about an error, to be put behind it. Empty where the error says enough.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room on that file system: containers and images can be removed now, too"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; mount that file system writable: the kernel's log (`dmesg`) tells why it is not"
        }
        _ if error.raw_os_error() == Some(Errno::EIO as i32) => {
            "; the disk or its file system fails, and may have lost what was written last: look at the kernel's log (`dmesg`)"
        }
        _ => "",
    }
}
