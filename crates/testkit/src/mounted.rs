//! Mounts as containerd carries them out.

use std::path::{Path, PathBuf};

use containerd_snapshots::api::types::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// The value of an option of the only mount.
pub fn option<'m>(mounts: &'m [Mount], name: &str) -> Option<&'m str> {
    let [mount] = mounts else { panic!("not one mount: {mounts:?}") };
    mount.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
}

/// The lower directories, top-most first.
pub fn lowers(mounts: &[Mount]) -> Vec<PathBuf> {
    option(mounts, "lowerdir").map_or_else(Vec::new, |lowers| lowers.split(':').map(PathBuf::from).collect())
}

/// Where containerd writes the files of a layer.
pub fn upper(mounts: &[Mount]) -> PathBuf {
    match option(mounts, "upperdir") {
        Some(upper) => upper.into(),
        None => {
            assert!(mounts[0].r#type == "bind" && mounts[0].options.contains(&"rw".to_owned()), "{mounts:?}");
            mounts[0].source.clone().into()
        }
    }
}

/// A mount in the tree, until it is dropped.
pub struct Mounted(TempDir);

impl Mounted {
    /// Mounts what the daemon answered.
    pub fn new(mounts: &[Mount]) -> Self {
        let [wanted] = mounts else { panic!("not one mount: {mounts:?}") };
        let target = tempfile::tempdir().unwrap();
        let path = target.path();
        if wanted.r#type == "bind" {
            let source = Some(wanted.source.as_str());
            mount(source, path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).unwrap();
            if wanted.options.iter().any(|option| option == "ro") {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
            }
        } else {
            let options = wanted.options.join(",");
            let result = mount(Some("overlay"), path, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
            result.unwrap_or_else(|error| panic!("{error}: {options}"));
        }
        Self(target)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The text of a file; `None` if it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path().join(path)).ok()
    }

    /// All paths below, sorted; directories end with `/`.
    pub fn tree(&self) -> Vec<String> {
        let mut all = Vec::new();
        for entry in walkdir::WalkDir::new(self.path()).min_depth(1) {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(self.path()).unwrap().to_str().unwrap().to_owned();
            all.push(if entry.file_type().is_dir() { path + "/" } else { path });
        }
        all.sort();
        all
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// What is in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
