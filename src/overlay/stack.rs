//! From a chain of snapshots to what containerd mounts. Pure: no call to the system is made here.
//!
//! A remote layer stands in the stack as `cover : layer : seal : erase` (see [`crate::markers`]), as far as it has them;
//! the top-most one always has its cover, which hides the catalog marker of every layer below. A layer that occurs
//! twice is listed once, at its top-most place: overlayfs refuses duplicates, and the lower copy adds nothing.

use std::collections::HashSet;
use std::path::Path;

use crate::digest::Digest;
use crate::markers::Shape;

/// The directory, or the link, with the files of a snapshot.
pub(crate) const FS: &str = "fs";
/// The work directory of overlayfs.
pub(crate) const WORK: &str = "work";
/// The directory above a remote layer. The names are short because each of them counts, see [`MAX_OPTIONS`].
pub(crate) const COVER: &str = "c";
/// The directory below a remote layer that containerd's own reader stops at.
pub(crate) const SEAL: &str = "s";
/// The directory below a remote layer that ends the merge of its opaque directories.
pub(crate) const ERASE: &str = "e";

/// The most lower directories that the kernel takes (fs/overlayfs: `OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;
/// mount(2) takes one page of options, and cuts longer ones without a word.
const PAGE: usize = 4096;
/// Bytes that are left for options that clients append (SELinux contexts, `volatile`).
const RESERVE: usize = 512;
/// The most bytes of options, after containerd made the lower directories relative.
const MAX_OPTIONS: usize = PAGE - 1 - RESERVE;
/// Digits of an id that is not known yet.
const ID_DIGITS: usize = 12;

/// One snapshot of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Names its directory.
    pub id: u64,
    /// What it is made of, if it lies in a repository.
    pub remote: Option<Remote>,
}

/// A layer in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Which layer.
    pub layer: Digest,
    /// The directories that it has around it.
    pub shape: Shape,
}

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
        "its mount options would have {0} bytes, {MAX_OPTIONS} fit (a page of {PAGE}, less {RESERVE} for options that clients append)"
    )]
    Options(usize),
}

/// The mount for a snapshot on top of `chain` (nearest first), whose directories are below `snapshots`.
///
/// `index_off`: whether the kernel's overlayfs knows the option `index`; a directory may then be in several mounts.
pub fn mount(snapshots: &Path, access: Access, chain: &[Layer], index_off: bool) -> Result<Mount, TooLarge> {
    let lowers = lowers(access, chain);
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
    let mut lowers = lowers(Access::View { id: 0 }, chain);
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
    let size = if full < PAGE - RESERVE { full } else { full - prefix };
    if size > MAX_OPTIONS { Err(TooLarge::Options(size)) } else { Ok(()) }
}

/// The lower directories, relative to `snapshots`, top-most first.
fn lowers(access: Access, chain: &[Layer]) -> Vec<String> {
    let plain = matches!(access, Access::Extract { .. });
    let mut lowers = Vec::with_capacity(chain.len() + 1);
    let mut listed = HashSet::new();
    for (depth, Layer { id, remote }) in chain.iter().enumerate() {
        let Some(Remote { layer, shape }) = remote else {
            lowers.push(format!("{id}/{FS}"));
            continue;
        };
        let is_top_most = listed.is_empty();
        if !listed.insert(*layer) {
            continue;
        }
        if !plain && (is_top_most || shape.cover) {
            lowers.push(format!("{id}/{COVER}"));
        }
        lowers.push(format!("{id}/{FS}"));
        if shape.hides_all {
            break;
        }
        let has_something_below = depth + 1 < chain.len();
        if !plain && has_something_below {
            if shape.seal {
                lowers.push(format!("{id}/{SEAL}"));
            }
            if shape.erase {
                lowers.push(format!("{id}/{ERASE}"));
            }
        }
    }
    lowers
}

#[cfg(test)]
mod tests;
