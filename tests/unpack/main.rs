//! The command `unpack`, run as the real program: what it makes, what it refuses, and what it leaves behind.
//!
//! | file | what |
//! |---|---|
//! | `bench` | images and repositories to test with |
//! | `entries` | archives, entry by entry |
//! | `gnu_tar` | the same tree as GNU tar's |
//! | `layers` | what a layer becomes |
//! | `hostile` | what is refused |
//! | `runs` | runs that repeat, meet, are killed or have no space |
//! | `images` | what is read and chosen |

/// Returns from a test that needs root.
macro_rules! need_root {
    () => {
        if !testkit::is_root() {
            return;
        }
    };
}

mod bench;
mod entries;
mod gnu_tar;
mod hostile;
mod images;
mod layers;
mod runs;
