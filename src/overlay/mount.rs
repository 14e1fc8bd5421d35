//! The mount that containerd carries out, and whether the kernel takes it.

use std::path::Path;

use super::names::{FS, WORK};
use super::stack::{Layer, lowers};

/// The most lower directories that the kernel takes (fs/overlayfs: `OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;
/// mount(2) takes one page of options, and cuts longer ones without a word.
const PAGE: usize = 4096;
/// Bytes that are left for options that clients append (SELinux contexts, `volatile`).
const RESERVED: usize = 512;
/// The most bytes of options, after containerd made the lower directories relative.
const MAX_OPTIONS: usize = PAGE - 1 - RESERVED;
/// Digits of an id that is not known yet.
const ID_DIGITS: usize = 12;

/// What the mount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    View {
        /// The id of the view.
        id: u64,
    },
    /// A container's root, written to the directory of this id.
    Write {
        /// The id of the active snapshot.
        id: u64,
    },
    /// A layer is extracted into the directory of this id. containerd mounts nothing, but looks the attributes of
    /// parent directories up in the lower directories: these are the layers alone, because a whiteout among them would
    /// fail the pull.
    Extract {
        /// The id of the active snapshot.
        id: u64,
    },
}

/// A mount as containerd carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub kind: &'static str,
    /// What is mounted.
    pub source: String,
    /// The options.
    pub options: Vec<String>,
}

/// The stack is larger than overlayfs takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Too many directories.
    #[error("it would need {0} lower directories, overlayfs takes {MAX_LOWERS}")]
    Lowers(usize),
    /// Too many bytes.
    #[error(
        "its mount options would have {0} bytes, {MAX_OPTIONS} fit (a page of {PAGE}, less {RESERVED} for options that clients append)"
    )]
    Options(usize),
}

/// The mount for a snapshot on top of `chain` (nearest first), whose directories are below `snapshots`.
///
/// `index_off`: whether the kernel's overlayfs knows the option `index`; a directory may then be in several mounts.
pub fn mount(snapshots: &Path, access: Access, chain: &[Layer], index_off: bool) -> Result<Mount, TooLarge> {
    let lowers = lowers(chain, matches!(access, Access::Extract { .. }));
    let path = |name: &str| snapshots.join(name).to_string_lossy().into_owned();
    let bind = |source: &str, mode: &str| Mount {
        kind: "bind",
        source: path(source),
        options: vec![mode.to_owned(), "rbind".to_owned()],
    };
    let mut options = Vec::new();
    match (access, lowers.as_slice()) {
        (Access::View { id }, []) => return Ok(bind(&format!("{id}/{FS}"), "ro")),
        (Access::View { .. }, [only]) => return Ok(bind(only, "ro")),
        (Access::Write { id } | Access::Extract { id }, []) => return Ok(bind(&format!("{id}/{FS}"), "rw")),
        (Access::View { .. }, _) => {}
        (Access::Write { id } | Access::Extract { id }, _) => {
            options.push(format!("workdir={}", path(&format!("{id}/{WORK}"))));
            options.push(format!("upperdir={}", path(&format!("{id}/{FS}"))));
        }
    }
    if index_off {
        options.insert(0, "index=off".to_owned());
    }
    let sizes: Vec<usize> = options.iter().map(String::len).collect();
    check(&lowers, snapshots, &sizes)?;
    let lowers: Vec<String> = lowers.iter().map(|name| path(name)).collect();
    options.push(format!("lowerdir={}", lowers.join(":")));
    Ok(Mount { kind: "overlay", source: "overlay".to_owned(), options })
}

/// Whether a container on top of `chain` and `above` further layers, local ones, can be mounted.
pub fn fits(snapshots: &Path, chain: &[Layer], above: usize) -> Result<(), TooLarge> {
    let unknown = "9".repeat(ID_DIGITS);
    let mut lowers = lowers(chain, false);
    lowers.extend((0..above).map(|_| format!("{unknown}/{FS}")));
    let base = snapshots.as_os_str().len() + ID_DIGITS + 2;
    let sizes = ["index=off".len(), "workdir=".len() + base + WORK.len(), "upperdir=".len() + base + FS.len()];
    check(&lowers, snapshots, &sizes)
}

/// `others`: the lengths of the options but `lowerdir`.
fn check(lowers: &[String], snapshots: &Path, others: &[usize]) -> Result<(), TooLarge> {
    if lowers.len() > MAX_LOWERS {
        return Err(TooLarge::Lowers(lowers.len()));
    }
    let names: usize = lowers.iter().map(String::len).sum::<usize>() + lowers.len().saturating_sub(1);
    let prefix = (snapshots.as_os_str().len() + 1) * lowers.len();
    let others: usize = others.iter().map(|length| length + 1).sum();
    let full = others + "lowerdir=".len() + names + prefix;
    // containerd mounts from within the common directory if the options would fill the page but for 512 bytes.
    let size = if full < PAGE - RESERVED { full } else { full - prefix };
    if size > MAX_OPTIONS { Err(TooLarge::Options(size)) } else { Ok(()) }
}
