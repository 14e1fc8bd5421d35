//! What the tests of the snapshotter share: the daemon as it runs on a node, repositories of either kind, containerd of
//! several versions with its clients, a registry and the images in it.
//!
//! | module | what it has |
//! |---|---|
//! | [`skip`] | how a test says that it cannot run here |
//! | [`programs`] | where the programs are: the daemon, the helpers of this crate, what `tools/build` made |
//! | [`sandbox`], [`process`] | a folder for one test, and the end of all that was started in it |
//! | [`daemon`], [`settings`] | the daemon under test, with the privileges that it has on a node |
//! | [`client`], [`namespace`], [`chain`] | containerd's side of the snapshots API |
//! | [`layer`], [`site`], [`mock`] | layers written by hand, and a repository that has them |
//! | [`image`], [`image_site`], [`registry`] | real images, in a repository and in a registry |
//! | [`containerd`], [`output`] | a real containerd, and what its clients print |
//! | [`inside`] | commands that compare inside a container |
//! | [`mounted`] | mounts as containerd carries them out |
//! | [`layer_model`] | random layers, and what they come to by the rules of OCI |
//! | [`documents`] | the blocks of the documents that the tests execute |
//! | [`source_graph`] | which files of a crate name which others |
//!
//! The programs of this crate: `mock-cvmfs` stands in for a CernVM-FS client, `test-registry` serves images,
//! `volatile-disk` loses what was not flushed, `automounter` takes its time, `demo` is `make demo`.
//!
//! This crate does not know the crate under test.

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

pub mod chain;
pub mod client;
pub mod containerd;
pub mod daemon;
pub mod documents;
pub mod image;
pub mod image_site;
pub mod inside;
pub mod layer;
pub mod layer_model;
pub mod mock;
pub mod mounted;
pub mod namespace;
pub mod output;
pub mod process;
pub mod programs;
pub mod registry;
pub mod sandbox;
pub mod settings;
pub mod site;
pub mod skip;
pub mod source_graph;
pub mod wait;

pub use chain::{Chain, Style};
pub use client::{Client, Info, Labels, labels, times};
pub use containerd::{Containerd, Nerdctl, Snapshotter, Version};
pub use daemon::Daemon;
pub use image::{Entry, Image, Written};
pub use image_site::ImageSite;
pub use layer::{Layer, sha256};
pub use mock::{Mock, Options};
pub use mounted::{Mounted, lowers, names, option, upper};
pub use namespace::{Namespace, Pulled, extract_key, target_filter};
pub use output::{Output, run};
pub use process::Process;
pub use registry::Registry;
pub use sandbox::Sandbox;
pub use settings::Settings;
pub use site::{Kind, Site};
pub use skip::{has_fuse, is_root};
pub use wait::{LIMIT, eventually, pause, wait_until};
