//! What has to hold for hostile input: the properties that the fuzzers in `fuzz/` look for counter-examples to, and that
//! the tests of this crate check on the inputs that are kept in `fuzz/corpus` and on changed ones.
//!
//! Each module but two has a `check` that panics where an input breaks the property. [`archive`] makes archives of bytes;
//! [`private_root`] is a root directory for one thread, in which whatever escapes is seen.

pub mod archive;
pub mod config;
pub mod filter;
pub mod key;
pub mod labels;
pub mod markers;
pub mod private_root;
pub mod unpack;
pub mod update;
