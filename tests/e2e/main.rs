//! End to end: real clients and a real containerd pull and run images whose layers lie in a repository, which our own
//! `unpack` has filled.
//!
//! | file | what it proves |
//! |---|---|
//! | `remote` | which layers are downloaded, and that a container is right whichever they are |
//! | `share` | layers and images used more than once: in other places, namespaces, at once, after a removal |
//! | `trees` | the tree of a container is the one that another unpacker makes |
//! | `forged` | an image that lies about its layers changes no other |
//! | `users` | what clients do in a container's tree: look users up, copy, compare, commit |
//! | `reboot` | a power cut and an upgrade under containers with data |
//! | `death` | each state of a repository under running containers, and that it comes back |
//! | `restart` | restarts and crashes of the daemon |
//! | `lost` | the way back after the metadata is lost, as the daemon prints it |
//! | `cri` | Kubernetes' interface, and ctr |
//! | `debian` | a real image |
//! | `node`, `site`, `tree` | what they all use |

mod cri;
mod death;
mod debian;
mod forged;
mod lost;
mod node;
mod reboot;
mod remote;
mod restart;
mod share;
mod tree;
mod trees;
mod users;
