//! Which of cover, seal and erase a remote snapshot has, and giving it those that it lacks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::error::Error;
use super::make::make_directory;
use super::overlay_content::{write_cover, write_erase, write_seal};
use crate::overlay::names::{COVER, ERASE, SEAL};
use crate::overlay::plan::Plan;

/// The file that says which plan cover, seal and erase were made of.
const PLAN: &str = "plan";
/// Something in the making. Nothing uses it, so the holder of the snapshot's lock may delete it.
const NEW: &str = "new";

/// Which directories a snapshot has to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub cover: bool,
    pub seal: bool,
    pub erase: bool,
}

/// Makes what is wanted and missing in the directory of a snapshot, or was made of another plan.
///
/// `lock`: the lock of this snapshot, which is taken only if there is something to do.
pub(super) fn ensure<G>(directory: &Path, plan: &Plan, wanted: Wanted, lock: impl FnOnce() -> G) -> Result<(), Error> {
    if missing(directory, plan, wanted).is_empty() {
        return Ok(());
    }
    let _guard = lock();
    let is_current = is_current(directory, plan);
    let write_plan = || {
        let (made, file) = (new_path(directory)?, directory.join(PLAN));
        let wrote = fs::write(&made, plan.fingerprint()).and_then(|()| fs::rename(&made, &file));
        wrote.map_err(|e| Error::io("write", &file, e))
    };
    // Where nothing could be of another plan it comes first: a crash before it would have all made twice.
    let is_first = [COVER, SEAL, ERASE].iter().all(|name| !exists(&directory.join(name)));
    let names = missing(directory, plan, wanted);
    if !is_current && is_first {
        write_plan()?;
    } else if !is_current {
        // A crash amid the exchange leaves some of each plan.
        remove(&directory.join(PLAN))?;
    }
    for name in names {
        let made = new_path(directory)?;
        make_directory(&made, 0o755)?;
        let wrote = match name {
            COVER => write_cover(&made, plan),
            SEAL => write_seal(&made, plan),
            _ => write_erase(&made, plan),
        };
        let wrote = wrote.map_err(|e| Error::io("write", &made, e));
        if let Err(error) = wrote.and_then(|()| put(&made, directory, name)) {
            // What cannot be removed now is taken away later.
            let _ = fs::remove_dir_all(&made);
            return Err(error);
        }
    }
    if !is_current && !is_first {
        write_plan()?;
    }
    Ok(())
}

/// The directories that have to be made.
fn missing(directory: &Path, plan: &Plan, wanted: Wanted) -> Vec<&'static str> {
    let is_current = is_current(directory, plan);
    // The fingerprint covers all three directories; if it differs, every one that is there is made again.
    let is_missing = |name: &str, wanted: bool| match directory.join(name) {
        path if is_current => wanted && !path.is_dir(),
        path => wanted || exists(&path),
    };
    let Wanted { cover, seal, erase } = wanted;
    let all = [(COVER, cover), (SEAL, seal), (ERASE, erase)];
    all.into_iter().filter(|(name, wanted)| is_missing(name, *wanted)).map(|(name, _)| name).collect()
}

fn is_current(directory: &Path, plan: &Plan) -> bool {
    fs::read(directory.join(PLAN)).is_ok_and(|is| is == plan.fingerprint().as_bytes())
}

/// Where something is made in the directory of a snapshot before it has its name; what a crash left there is removed.
/// Needs the snapshot's lock.
pub(super) fn new_path(directory: &Path) -> Result<PathBuf, Error> {
    let path = directory.join(NEW);
    remove(&path)?;
    Ok(path)
}

/// Whether something is being made in the directory of a snapshot, or a crash left it.
pub(super) fn is_unfinished(directory: &Path) -> bool {
    exists(&directory.join(NEW))
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes a file or a directory, if it exists. Follows no link.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Renames something to a name that is free.
fn rename_aside(from: &Path, directory: &Path) -> Result<PathBuf, Error> {
    for n in 0u64.. {
        let path = directory.join(format!(".{n}"));
        match renameat2(AT_FDCWD, from, AT_FDCWD, &path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(path),
            Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(Error::io("rename", from, e.into())),
        }
    }
    unreachable!("there is a free number")
}

/// Gives a finished directory its name. One that has it already stays under another: a mounted overlay may use it.
fn put(made: &Path, directory: &Path, name: &str) -> Result<(), Error> {
    let place = directory.join(name);
    let swap = |made: &Path, flags| renameat2(AT_FDCWD, made, AT_FDCWD, &place, flags);
    let done = match swap(made, RenameFlags::RENAME_NOREPLACE) {
        // By way of the name that the other one will have: under that of what is being made it would be taken away.
        Err(nix::errno::Errno::EEXIST) => swap(&rename_aside(made, directory)?, RenameFlags::RENAME_EXCHANGE),
        result => result,
    };
    done.map_err(|e| Error::io("put in place", &place, e.into()))
}
