//! The unix socket: made carefully, since what lies at its path may be somebody else's.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The length of a path in `sockaddr_un`, with its terminator (unix(7)).
const MAX_PATH: usize = 108;

/// There is no listener; what lies at the path is untouched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a socket.
    #[error("cannot listen on {path}: there is {what}, which is left alone; remove it or choose another --address")]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The socket of a running process.
    #[error("cannot listen on {0}: another process listens there; stop it, or choose another --address")]
    InUse(PathBuf),
    /// Longer than the kernel takes.
    #[error("cannot listen on {0}: the path has more than 107 bytes, choose a shorter --address")]
    TooLong(PathBuf),
    /// A call failed.
    #[error("cannot listen on {path}: {what}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was done.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Listens on a path that is free, or that a process of ours left behind. The socket is for its owner only.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let io = |what| move |source| Error::Io { path: path.to_owned(), what, source };
    if path.as_os_str().len() >= MAX_PATH {
        return Err(Error::TooLong(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(io("make its directory"))?;
    }
    remove_stale(path)?;
    // Made under another name and renamed: nobody can connect before the mode is right.
    let aside = path.with_extension(format!("{}", std::process::id()));
    // A process that was killed here may have had our number: in a container it is always the same.
    remove_stale(&aside)?;
    let listener = UnixListener::bind(&aside).map_err(io("bind"))?;
    let placed = fs::set_permissions(&aside, Permissions::from_mode(0o600)).and_then(|()| fs::hard_link(&aside, path));
    let removed = fs::remove_file(&aside);
    placed.and(removed).map_err(io("put it in place"))?;
    listener.set_nonblocking(true).map_err(io("make it non-blocking"))?;
    Ok(listener)
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { path: path.to_owned(), what: "look at it", source }),
    };
    let kind = metadata.file_type();
    let occupied = |what| Err(Error::Occupied { path: path.to_owned(), what });
    if kind.is_dir() {
        return occupied("a directory");
    }
    if kind.is_symlink() {
        return occupied("a symbolic link");
    }
    if !kind.is_socket() {
        return occupied("a file");
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
        // It answers, or it is too busy to.
        Ok(_) | Err(_) => return Err(Error::InUse(path.to_owned())),
    }
    fs::remove_file(path).map_err(|source| Error::Io { path: path.to_owned(), what: "remove the stale socket", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d/s.sock");
        (directory, path)
    }

    #[test]
    fn the_socket_and_a_new_directory_are_for_the_owner_only() {
        let (_directory, path) = scratch();
        let listener = listen(&path).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        UnixStream::connect(&path).unwrap();
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
        drop(listener);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let (_directory, path) = scratch();
        drop(listen(&path).unwrap());
        assert!(path.exists(), "left behind");
        let _listener = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn one_that_was_left_half_made_is_replaced() {
        let (_directory, path) = scratch();
        drop(listen(&path).unwrap());
        fs::rename(&path, path.with_extension(format!("{}", std::process::id()))).unwrap();
        let _listener = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_not_a_stale_socket_is_refused_and_untouched() {
        let (_directory, path) = scratch();
        let live = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(Error::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(live);
        fs::remove_file(&path).unwrap();

        fs::write(&path, "mine").unwrap();
        assert!(matches!(listen(&path), Err(Error::Occupied { what: "a file", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_file(&path).unwrap();

        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(matches!(listen(&path), Err(Error::Occupied { what: "a directory", .. })));
        assert!(path.join("inside").exists());
        fs::remove_dir_all(&path).unwrap();

        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(listen(&path), Err(Error::Occupied { what: "a symbolic link", .. })));
    }

    #[test]
    fn a_path_that_the_kernel_cuts_is_refused() {
        let (directory, _) = scratch();
        let path = directory.path().join("x".repeat(108));
        assert!(matches!(listen(&path), Err(Error::TooLong(_))));
    }
}
