//! The kinds of snapshots.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What may be done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Read-only, not to be committed.
    View,
    /// Writable, can be committed.
    Active,
    /// Unchangeable; the only kind that can be a parent.
    Committed,
}

impl Kind {
    /// The name that filters know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
