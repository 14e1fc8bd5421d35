//! The daemon's configuration file, without the paths of the daemon itself.

use std::fmt;
use std::path::PathBuf;

/// A repository in a configuration: name, path, kind (`cvmfs` or `directory`), and further lines.
pub type RepositoryEntry = (String, PathBuf, &'static str, String);

/// A configuration; `Display` writes the file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The repositories, in the order in which they are searched.
    pub repositories: Vec<RepositoryEntry>,
    /// How long a repository may take to answer a probe.
    pub probe: &'static str,
    /// How long the first mount behind an automount may take.
    pub first_mount: &'static str,
    /// How long the walk for a layer's markers may take within a Prepare.
    pub markers: &'static str,
    /// The log level.
    pub log_level: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        // Generous: the machine may be busy with other tests.
        Self { repositories: Vec::new(), probe: "4s", first_mount: "8s", markers: "10s", log_level: "debug" }
    }
}

impl Settings {
    /// For repositories that hang: what is not answered within a second is not answered.
    pub fn short_limits() -> Self {
        Self { probe: "1s", first_mount: "1500ms", ..Self::default() }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log-level = '{}'\n[timeouts]", self.log_level)?;
        for (name, value) in [("probe", self.probe), ("first-mount", self.first_mount), ("markers", self.markers)] {
            writeln!(f, "{name} = '{value}'")?;
        }
        self.repositories.iter().try_for_each(|repository| f.write_str(&repository_table(repository)))
    }
}

/// The table of a repository in the configuration file.
pub fn repository_table((name, path, kind, more): &RepositoryEntry) -> String {
    format!("[[repositories]]\nname = '{name}'\npath = {path:?}\nkind = '{kind}'\n{more}\n")
}
