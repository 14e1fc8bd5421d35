//! From a chain of snapshots to the lower directories of an overlay.
//!
//! A remote layer stands in the stack as `cover : layer : seal : erase` (see [`super::plan`]), as far as it has them; the
//! top-most one always has its cover, which hides the catalog marker of every layer below. A layer that occurs
//! twice is listed once, at its top-most place: overlayfs refuses duplicates, and the lower copy adds nothing.

use std::collections::HashSet;

use super::names::{COVER, ERASE, FS, SEAL};
use super::plan::Shape;
use crate::digest::Digest;

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

/// The lower directories of `chain` (nearest first), relative to the directory of all snapshots, top-most first.
///
/// `layers_alone`: without covers, seals and erases.
pub(super) fn lowers(chain: &[Layer], layers_alone: bool) -> Vec<String> {
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
        if !layers_alone && (is_top_most || shape.cover) {
            lowers.push(format!("{id}/{COVER}"));
        }
        lowers.push(format!("{id}/{FS}"));
        if shape.hides_all {
            break;
        }
        let has_something_below = depth + 1 < chain.len();
        if !layers_alone && has_something_below {
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
