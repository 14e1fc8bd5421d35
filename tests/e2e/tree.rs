//! Trees of files, to be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use testkit::{ImageSite, run};

/// What everybody can see of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Digest of the content, target of the link, number of the device.
    data: String,
}

/// All that is in a directory; the directory itself, whose mode no snapshotter carries, is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let path = root.join(&dir);
            for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
                let entry = entry.expect("a directory entry");
                let path = dir.join(entry.file_name());
                let node = Node::read(&entry.path());
                if node.kind == "directory" {
                    todo.push(path.clone());
                }
                tree.0.insert(path, node);
            }
        }
        tree
    }

    /// What umoci makes of an image.
    pub(crate) fn of_umoci(site: &ImageSite, name: &str, to: &Path) -> Self {
        let (image, dir) = (format!("{}:{name}", site.layout().display()), to.to_string_lossy());
        let args = ["raw", "unpack", "--image", &image, &dir];
        run("umoci", &args, "/usr/sbin:/usr/bin:/bin", Duration::from_secs(300)).ok();
        Self::read(to)
    }

    /// Without this file.
    pub(crate) fn without(mut self, path: &str) -> Self {
        self.0.remove(Path::new(path));
        self
    }

    /// With whole seconds.
    pub(crate) fn in_seconds(mut self) -> Self {
        self.0.values_mut().for_each(|node| node.mtime.1 = 0);
        self
    }

    /// Whether there is something at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    /// Panics with the differences, if any.
    #[track_caller]
    pub(crate) fn must_be(&self, expected: &Self) {
        assert!(expected.0.len() > 30, "an empty tree proves nothing");
        let mut report = Vec::new();
        for path in self.0.keys().chain(expected.0.keys().filter(|path| !self.0.contains_key(*path))) {
            let (have, want) = (self.0.get(path), expected.0.get(path));
            if have != want {
                let show = |node: Option<&Node>| node.map_or("nothing".into(), ToString::to_string);
                report.push(format!("{}: {}, expected {}", path.display(), show(have), show(want)));
            }
        }
        let count = report.len();
        report.truncate(30);
        assert_eq!(count, 0, "differences:\n{}", report.join("\n"));
    }
}

impl Node {
    fn read(path: &Path) -> Self {
        let told = |error| panic!("{}: {error}", path.display());
        let metadata: Metadata = path.symlink_metadata().unwrap_or_else(told);
        let kind = metadata.file_type();
        let (kind, data) = if kind.is_dir() {
            ("directory", String::new())
        } else if kind.is_symlink() {
            (
                "link",
                path.read_link().unwrap_or_else(|error| panic!("{}: {error}", path.display())).display().to_string(),
            )
        } else if kind.is_file() {
            let mut hash = Sha256::new();
            File::open(path)
                .and_then(|mut file| std::io::copy(&mut file, &mut HashWriter(&mut hash)))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            ("file", hex::encode(hash.finalize()))
        } else if kind.is_fifo() {
            ("fifo", String::new())
        } else {
            (if kind.is_char_device() { "character device" } else { "other" }, metadata.rdev().to_string())
        };
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        let mode = if kind == "link" { 0o777 } else { metadata.mode() & 0o7777 };
        Self { kind, mode, owner: (metadata.uid(), metadata.gid()), mtime, data }
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, owner: (uid, gid), mtime: (seconds, nanoseconds), data } = self;
        write!(f, "{kind} {mode:04o} {uid}:{gid} {seconds}.{nanoseconds:09} {data}")
    }
}
