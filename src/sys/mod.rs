//! What the kernel is asked for in more than one place. Nothing here knows what a snapshot or a repository is.

pub(crate) mod beneath;
pub(crate) mod disk_error;
pub(crate) mod errno;
pub(crate) mod flush;
pub(crate) mod mount_table;
pub(crate) mod remove_tree;
