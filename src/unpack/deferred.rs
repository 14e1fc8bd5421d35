//! What directories get at the end, when nothing in them changes any more.

use std::collections::BTreeMap;

use super::entry::Time;
use super::name::Name;

/// The most memory for all of them, about. An archive of directories compresses well, but a million takes less.
const LIMIT: usize = 128 * 1024 * 1024;

/// What one directory gets.
pub(super) struct Deferred {
    /// The archive says nothing of it.
    pub(super) unlisted: bool,
    pub(super) mtime: Time,
    pub(super) default_acl: Option<Vec<u8>>,
}

impl Deferred {
    /// For a directory that the archive does not list. The time is always the same, so that a layer always gives the
    /// same tree.
    pub(super) fn unlisted() -> Self {
        Self { unlisted: true, mtime: Time { seconds: 0, nanos: 0 }, default_acl: None }
    }

    /// Memory that it takes, about, under this name.
    fn size(&self, name: &Name) -> usize {
        size_of::<(Name, Self)>() + name.0.len() + self.default_acl.as_ref().map_or(0, Vec::len)
    }
}

/// More directories, or longer names of them, than fit into memory.
#[derive(Debug)]
pub(super) struct TooMany;

/// All directories of a layer.
#[derive(Default)]
pub(super) struct Directories {
    deferred: BTreeMap<Name, Deferred>,
    /// Memory that they take.
    size: usize,
}

impl Directories {
    /// Remembers a directory, in place of what was known of it.
    pub(super) fn insert(&mut self, name: Name, deferred: Deferred) -> Result<(), TooMany> {
        self.remove(&name);
        self.size += deferred.size(&name);
        self.deferred.insert(name, deferred);
        if self.size > LIMIT { Err(TooMany) } else { Ok(()) }
    }

    /// The default ACL that a directory gets.
    pub(super) fn default_acl(&self, name: &Name) -> Option<&Vec<u8>> {
        self.deferred.get(name)?.default_acl.as_ref()
    }

    /// A directory and what lay in it are gone.
    pub(super) fn remove_tree(&mut self, name: &Name) {
        self.remove(name);
        let prefix = [&name.0[..], b"/"].concat();
        let from = Name(prefix.clone());
        let below = self.deferred.range(from..).map(|(name, _)| name).take_while(|name| name.0.starts_with(&prefix));
        for name in below.cloned().collect::<Vec<_>>() {
            self.remove(&name);
        }
    }

    fn remove(&mut self, name: &Name) {
        if let Some(deferred) = self.deferred.remove(name) {
            self.size -= deferred.size(name);
        }
    }

    /// All of them, each after what lies in it.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Name, Deferred)> + use<> {
        // Backwards: what lies in a directory sorts behind it.
        std::mem::take(self).deferred.into_iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directories: &mut Directories) -> Vec<String> {
        directories.take().map(|(name, _)| String::from_utf8(name.0).unwrap()).collect()
    }

    fn of(names: &[&str]) -> Directories {
        let mut directories = Directories::default();
        for name in names {
            directories.insert(Name(name.as_bytes().to_vec()), Deferred::unlisted()).unwrap();
        }
        directories
    }

    #[test]
    fn a_directory_comes_after_what_lies_in_it() {
        assert_eq!(names(&mut of(&["", "a", "a/b", "a-b", "a/b/c"])), ["a/b/c", "a/b", "a-b", "a", ""]);
    }

    #[test]
    fn a_tree_goes_as_a_whole_and_its_memory_with_it() {
        let mut directories = of(&["", "a", "a/b", "a-b", "ab", "b"]);
        directories.remove_tree(&Name(b"a".to_vec()));
        assert_eq!(directories.size, of(&["", "a-b", "ab", "b"]).size);
        assert_eq!(names(&mut directories), ["b", "ab", "a-b", ""]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut directories = Directories::default();
        let acl = || Deferred { default_acl: Some(vec![0; LIMIT / 2]), ..Deferred::unlisted() };
        for _ in 0..3 {
            directories.insert(Name(b"a".to_vec()), acl()).unwrap();
        }
        assert!(directories.insert(Name(b"b".to_vec()), acl()).is_err());
    }
}
