//! Layers in memory, and what they come to by the rules of the OCI image specification (layer.md, "Applying Changesets").

pub mod disk;
pub mod generate;

use std::collections::BTreeMap;
use std::fmt;

/// A prefix that no entry of an image can have.
pub const MARKER: &str = ".wh.";
/// The marker of an opaque directory.
pub const OPAQUE: &str = ".wh..wh..opq";
/// The prefix of aufs' own names, which hide nothing.
pub const AUFS: &str = ".wh..wh.";

/// Markers that no layer may have: they would delete the directory itself, or its parent.
pub const INVALID: [&str; 3] = [".wh.", ".wh..", ".wh..."];
/// Stands for the byte 255, which is nowhere in UTF-8: names are read lossily, which turns the one into the other.
pub const NOT_UTF8: &str = "\u{fffd}";

/// The entries of a directory.
pub type Entries = BTreeMap<String, File>;

/// A file of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The permissions, with set-uid, set-gid and sticky bit.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change, in seconds.
    pub mtime: i64,
    /// The type and the content.
    pub what: What,
}

/// The type of a file, and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Dir(Entries),
    /// A regular file.
    Regular(String),
    /// A symbolic link, with its target.
    Link(String),
    /// A named pipe.
    Fifo,
    /// A character device, with its number.
    Char(u64),
    /// A block device, with its number.
    Block(u64),
}

/// A layer: its root, with markers as the files that they are in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// It lies in the repository.
    pub published: bool,
    /// Its root directory.
    pub root: File,
}

impl File {
    /// The entries of a directory.
    pub fn entries(&self) -> Option<&Entries> {
        match &self.what {
            What::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    /// As [`Self::entries`], to be changed.
    pub fn entries_mut(&mut self) -> Option<&mut Entries> {
        match &mut self.what {
            What::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    /// What is at a path, an empty one being the file itself.
    pub fn at(&self, path: &str) -> Option<&Self> {
        parts(path).try_fold(self, |file, name| file.entries()?.get(name))
    }

    /// As [`Self::at`], to be changed.
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Self> {
        parts(path).try_fold(self, |file, name| file.entries_mut()?.get_mut(name))
    }

    /// Every path below, parents first.
    pub fn paths(&self) -> Vec<String> {
        fn walk(file: &File, path: &str, found: &mut Vec<String>) {
            for (name, file) in file.entries().into_iter().flatten() {
                let path = join(path, name);
                found.push(path.clone());
                walk(file, &path, found);
            }
        }
        let mut found = Vec::new();
        walk(self, "", &mut found);
        found
    }

    /// Whether it holds no marker that no layer may have.
    pub fn is_valid(&self) -> bool {
        !self.paths().iter().any(|path| path.rsplit('/').next().is_some_and(|name| INVALID.contains(&name)))
    }

    /// Without markers, and without what is in them.
    fn bare(&self) -> Self {
        let mut file = self.clone();
        if let Some(entries) = file.entries_mut() {
            entries.retain(|name, _| !name.starts_with(MARKER));
            for entry in entries.values_mut() {
                *entry = entry.bare();
            }
        }
        file
    }

    /// This file, of an upper layer, over what the layers below have in its place.
    fn over(&self, below: Option<Self>) -> Self {
        let (Some(own), Some(What::Dir(mut merged))) = (self.entries(), below.map(|below| below.what)) else {
            // Only a directory on a directory is merged.
            return self.bare();
        };
        if own.contains_key(OPAQUE) {
            merged.clear();
        }
        for marker in own.keys().filter(|name| name.starts_with(MARKER) && !name.starts_with(AUFS)) {
            merged.remove(&marker[MARKER.len()..]);
        }
        for (name, file) in own.iter().filter(|(name, _)| !name.starts_with(MARKER)) {
            let below = merged.remove(name);
            merged.insert(name.clone(), file.over(below));
        }
        Self { what: What::Dir(merged), ..self.clone() }
    }
}

/// What the layers come to, the lowest first.
pub fn merged(layers: &[Layer]) -> Option<File> {
    layers.iter().fold(None, |below, layer| Some(layer.root.over(below)))
}

/// The path of a name in a directory; the root has the empty path.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.into() } else { format!("{dir}/{name}") }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// The attributes, and the target or content; not what is in a directory.
impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Dir(_) => write!(f, "directory")?,
            What::Regular(content) => write!(f, "file {content:?}")?,
            What::Link(target) => write!(f, "link to {target}")?,
            What::Fifo => write!(f, "fifo")?,
            What::Char(number) => write!(f, "character device {number}")?,
            What::Block(number) => write!(f, "block device {number}")?,
        }
        write!(f, " {:04o} {}:{} @{}", self.mode, self.uid, self.gid, self.mtime)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.root.paths();
        writeln!(f, "{}, {} entries", if self.published { "published" } else { "local" }, paths.len())?;
        for path in paths {
            let file = self.root.at(&path).expect("a path of the layer");
            writeln!(f, "    {path}: {file}")?;
        }
        Ok(())
    }
}
