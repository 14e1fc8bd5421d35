//! Layers on the disk: as a publisher leaves them, as containerd unpacks them, and as a mount shows them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, lutimes, mknod};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{AUFS, Entries, File, MARKER, NOT_UTF8, OPAQUE, What, join};

const CATALOGS: [&str; 2] = [".cvmfscatalog", ".cvmfsautocatalog"];

/// Where a path of a layer is on the disk.
pub fn place(root: &Path, path: &str) -> PathBuf {
    let parts: Vec<&[u8]> = path.split(NOT_UTF8).map(str::as_bytes).collect();
    root.join(OsString::from_vec(parts.join(&0xff)))
}

/// As a publisher leaves it: markers are files, and there are catalog files in the root and in some directories.
pub fn write_published(to: &Path, root: &File) -> io::Result<()> {
    let mut root = root.clone();
    let catalog = File { mode: 0o444, uid: 0, gid: 0, mtime: 1, what: What::Regular("catalog".into()) };
    for path in root.paths().into_iter().chain([String::new()]) {
        if path.contains(MARKER) || path.len() % 3 == 1 {
            continue;
        }
        let names = if path.is_empty() { &CATALOGS[..1] } else { &CATALOGS };
        if let Some(entries) = root.at_mut(&path).and_then(File::entries_mut) {
            entries.extend(names.iter().map(|name| ((*name).to_owned(), catalog.clone())));
        }
    }
    write(to, &root)
}

/// As containerd unpacks it on top of `below`: markers become whiteouts and opaque directories.
///
/// A whiteout that hides nothing is left out: the kernel lists its name in a directory that no other layer has.
pub fn write_local(to: &Path, root: &File, below: Option<&File>) -> io::Result<()> {
    fn write_dir(to: &Path, dir: &File, below: Option<&Entries>) -> io::Result<()> {
        let own = dir.entries().into_iter().flatten();
        let markers: Vec<&str> =
            own.clone().filter(|(name, _)| name.starts_with(MARKER)).map(|(name, _)| &**name).collect();
        let opaque = markers.contains(&OPAQUE);
        let below = below.filter(|_| !opaque);
        let deleted: Vec<&str> = markers.iter().filter(|m| !m.starts_with(AUFS)).map(|m| &m[MARKER.len()..]).collect();
        for (name, file) in own.filter(|(name, _)| !name.starts_with(MARKER)) {
            let path = place(to, name);
            let below = below.filter(|_| !deleted.contains(&&**name)).and_then(|below| below.get(name));
            if file.entries().is_some() {
                fs::create_dir(&path)?;
                write_dir(&path, file, below.and_then(File::entries))?;
                if deleted.contains(&&**name) {
                    xattr::set(&path, "trusted.overlay.opaque", b"y")?;
                }
                attributes(&path, file)?;
            } else {
                write(&path, file)?;
            }
        }
        for name in deleted {
            let hides = below.is_some_and(|below| below.contains_key(name));
            if hides && !dir.entries().is_some_and(|own| own.contains_key(name)) {
                mknod(&place(to, name), SFlag::S_IFCHR, Mode::empty(), 0)?;
            }
        }
        if opaque {
            xattr::set(to, "trusted.overlay.opaque", b"y")?;
        }
        Ok(())
    }
    write_dir(to, root, below.and_then(File::entries))
}

/// As it is. Directories that are there are filled.
pub fn write(path: &Path, file: &File) -> io::Result<()> {
    match &file.what {
        What::Dir(entries) => {
            fs::create_dir_all(path)?;
            for (name, file) in entries {
                write(&place(path, name), file)?;
            }
        }
        What::Regular(content) => fs::write(path, content)?,
        What::Link(target) => symlink(target, path)?,
        What::Fifo => mknod(path, SFlag::S_IFIFO, Mode::empty(), 0)?,
        What::Char(number) => mknod(path, SFlag::S_IFCHR, Mode::empty(), *number)?,
        What::Block(number) => mknod(path, SFlag::S_IFBLK, Mode::empty(), *number)?,
    }
    attributes(path, file)
}

fn attributes(path: &Path, file: &File) -> io::Result<()> {
    lchown(path, Some(file.uid), Some(file.gid))?;
    if !matches!(file.what, What::Link(_)) {
        fs::set_permissions(path, fs::Permissions::from_mode(file.mode))?;
    }
    let time = TimeVal::seconds(file.mtime);
    Ok(lutimes(path, &time, &time)?)
}

/// What is there, by listing and looking at each file. What must not be there at all, a name without a file or an
/// extended attribute, is an error.
pub fn read(path: &Path) -> Result<File, String> {
    read_below(path, "")
}

fn read_below(root: &Path, at: &str) -> Result<File, String> {
    let path = place(root, at);
    let told = |error: io::Error| format!("{at:?}: {error}");
    let metadata = path.symlink_metadata().map_err(|error| format!("{at:?} is listed, but: {error}"))?;
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        let mut entries = Entries::new();
        for entry in fs::read_dir(&path).map_err(told)? {
            let name = entry.map_err(told)?.file_name().to_string_lossy().into_owned();
            let file = read_below(root, &join(at, &name))?;
            entries.insert(name, file);
        }
        What::Dir(entries)
    } else if kind.is_symlink() {
        What::Link(path.read_link().map_err(told)?.to_string_lossy().into_owned())
    } else if kind.is_file() {
        What::Regular(fs::read_to_string(&path).map_err(told)?)
    } else if kind.is_fifo() {
        What::Fifo
    } else if kind.is_char_device() {
        What::Char(metadata.rdev())
    } else {
        What::Block(metadata.rdev())
    };
    if let Some(name) = xattr::list(&path).map_err(told)?.next() {
        return Err(format!("{at:?} has the extended attribute {name:?}"));
    }
    let mode = if kind.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
    Ok(File { mode, uid: metadata.uid(), gid: metadata.gid(), mtime: metadata.mtime(), what })
}

/// Compares all but the root itself, whose attributes no snapshotter carries.
pub fn compare(what: &str, expected: &File, path: &Path, times: bool) -> Result<(), String> {
    let found = read(path).map_err(|error| format!("{what}: {error}"))?;
    let mut report = String::new();
    let paths = expected.paths().into_iter().chain(found.paths().into_iter().filter(|p| expected.at(p).is_none()));
    for path in paths {
        let show = |root: &File| {
            let file = root.at(&path)?;
            let file = if times { file.clone() } else { File { mtime: 0, ..file.clone() } };
            Some(file.to_string())
        };
        let (want, have) = (show(expected), show(&found));
        if want != have {
            let text = |side: Option<String>| side.unwrap_or_else(|| "nothing".into());
            let _ = writeln!(report, "    {path}: {}, expected {}", text(have), text(want));
        }
    }
    if report.is_empty() { Ok(()) } else { Err(format!("  {what}:\n{report}")) }
}
