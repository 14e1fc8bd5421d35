//! Which files of the layers below a published layer deletes.
//!
//! A layer in a repository is not an overlayfs layer: its deletions are ordinary files called `.wh.<name>`, its opaque
//! directories hold a file `.wh..wh..opq`, and CernVM-FS adds catalog markers. [`walk`] finds them, [`build`] turns them
//! into a [`crate::overlay::plan::Plan`], and [`cache`] remembers plans and has each layer walked once.

mod build;
mod cache;
mod error;
mod list;
mod names;
mod queue;
mod walk;

pub use cache::PlanCache;
pub use error::WalkError;

#[cfg(test)]
mod tests;
