//! What overlayfs is asked to mount. Pure: no call to the system is made here.
//!
//! ```text
//! lowerdir = ... : cover : layer : seal : erase : <the layers below> ...
//! ```
//!
//! [`plan`] is what stands around one layer in a repository, [`stack`] puts the layers of a chain on top of each other,
//! [`mount`] turns the stack into the mount that containerd carries out, and [`names`] has the names on the disk.

pub mod mount;
pub(crate) mod names;
pub(crate) mod path;
pub mod plan;
pub mod stack;

#[cfg(test)]
mod tests;
