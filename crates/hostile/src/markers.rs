//! Marker names: what a layer with any names in it deletes, and the directories that are made of that.
//!
//! An input: entries separated by NUL. `path` is a file, `path/` a directory, `path` + 0x01 + `target` a symbolic link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmfs_snapshotter::config::{Kind, Verify};
use cvmfs_snapshotter::digest::Digest;
use cvmfs_snapshotter::markers::{PlanCache, WalkError};
use cvmfs_snapshotter::overlay::plan::Plan;
use cvmfs_snapshotter::repository::{Limits, Repository};
use cvmfs_snapshotter::state::directories::Directories;

use crate::private_root::{PrivateRoot, Sentinel};

type Name = Vec<u8>;

/// Longer ones cannot be opened from the layer's root in one call.
const PATH_MAX: usize = 4096;

/// The root directory in which inputs are checked.
pub fn private_root() -> PrivateRoot {
    PrivateRoot::new(Subject::new, Subject::check)
}

struct Subject {
    plans: PlanCache,
    layer: Digest,
    layerfs: PathBuf,
    tree: Directories,
    sentinel: Sentinel,
    number: u64,
}

impl Subject {
    fn new() -> Self {
        let minute = Duration::from_secs(60);
        let limits = Limits { probe: minute, first_mount: minute };
        let repository = Repository::new("r".into(), "/repository".into(), Kind::Directory, Verify::Off, limits);
        let repository = Arc::new(repository.expect("a repository"));
        let layer = Digest::from_bytes([7; 32]);
        let root = Path::new("/state");
        Directories::prepare_root(root).expect("the state directory");
        let tree = Directories::open(root).expect("the directories");
        let sentinel = Sentinel::new(&["/repository", "/state"]);
        let layerfs = repository.layer_directory(layer);
        Self { plans: PlanCache::new(repository), layer, layerfs, tree, sentinel, number: 0 }
    }

    fn check(&mut self, data: &[u8]) {
        if let Some(plan) = Plan::decode(data) {
            assert_eq!(Plan::decode(&plan.encode()), Some(plan), "of bytes that happen to be a plan");
        }
        if self.layerfs.exists() {
            fs::remove_dir_all(&self.layerfs).expect("the last layer");
        }
        fs::create_dir_all(&self.layerfs).expect("a layer");
        for entry in data.split(|byte| *byte == 0) {
            place(&self.layerfs, entry);
        }
        let mut found = BTreeMap::new();
        list(&self.layerfs, b"", &mut found);
        self.number += 1;
        let deadline = Instant::now() + Duration::from_secs(60);
        let result = self.plans.find(self.layer, &self.number.to_string(), deadline);
        self.plans.forget(self.layer);
        let plan = match (result, Expected::of(&found)) {
            (Ok(plan), Some(expected)) => {
                assert_eq!(Expected::in_plan(&plan), expected, "of {:?}", shown(found.keys()));
                plan
            }
            (Err(WalkError::InvalidMarker(path)), None) => {
                assert!(
                    found.contains_key(path.as_os_str().as_bytes()),
                    "{path:?} is none of {:?}",
                    shown(found.keys())
                );
                return;
            }
            (Err(WalkError::Io { .. }), _) if found.keys().any(|path| path.len() >= PATH_MAX - 1) => return,
            (result, expected) => panic!("{result:?} and not {expected:?} of {:?}", shown(found.keys())),
        };
        assert_eq!(Plan::decode(&plan.encode()).as_ref(), Some(&*plan));
        self.check_directories(&plan);
    }

    /// The directories that the plan calls for hold what it says, and nothing appears anywhere else.
    fn check_directories(&self, plan: &Plan) {
        let id = self.number;
        self.tree.create_remote(id, &self.layerfs).expect("a snapshot");
        let made = self.tree.ensure_overlay_directories(id, plan, true);
        let directory = self.tree.snapshots().join(id.to_string());
        if made.is_ok() {
            let mut cover = BTreeMap::new();
            list(&directory.join("c"), b"", &mut cover);
            let whiteouts: BTreeSet<&Name> =
                cover.iter().filter(|(_, kind)| **kind == Type::Whiteout).map(|e| e.0).collect();
            let catalog = b".cvmfscatalog".to_vec();
            assert_eq!(whiteouts, plan.whiteouts.iter().chain([&catalog]).collect());
            let directories: BTreeSet<&Name> =
                cover.iter().filter(|(_, kind)| **kind == Type::Directory).map(|e| e.0).collect();
            assert_eq!(directories, plan.directories.iter().map(|(path, _)| path).collect());
        } else {
            let long = |path: &&Name| path.len() >= PATH_MAX - 1;
            assert!(plan.whiteouts.iter().chain(&plan.opaque).any(|path| long(&path)), "{made:?}");
        }
        self.tree.discard(id).expect("a removal");
        self.tree.empty_trash().expect("an empty trash");
        assert!(!directory.exists());
        self.sentinel.check();
    }
}

/// What is expected of a plan: sets of paths.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    whiteouts: BTreeSet<Name>,
    opaque: BTreeSet<Name>,
    erased: BTreeSet<Name>,
    directories: BTreeSet<Name>,
    hides_all: bool,
}

impl Expected {
    fn in_plan(plan: &Plan) -> Self {
        let set = |paths: &[Name]| paths.iter().cloned().collect();
        let directories = plan.directories.iter().map(|(path, _)| path.clone()).collect();
        let (whiteouts, opaque, erased) = (set(&plan.whiteouts), set(&plan.opaque), set(&plan.erased));
        Self { whiteouts, opaque, erased, directories, hides_all: plan.hides_all }
    }

    /// By the image specification (layer.md, "Whiteouts"); `None` if a marker deletes nothing that an entry can be.
    fn of(found: &BTreeMap<Name, Type>) -> Option<Self> {
        let mut whiteouts = BTreeSet::new();
        let mut hidden: BTreeSet<Name> = BTreeSet::new();
        for (path, kind) in found {
            let (parent, name) = split(path);
            let is_catalog = *kind != Type::Directory
                && (name == b".cvmfsautocatalog" || name == b".cvmfscatalog" && !parent.is_empty());
            match name.strip_prefix(b".wh.") {
                None if is_catalog => drop(whiteouts.insert(path.clone())),
                None => {}
                Some(b"" | b"." | b"..") => return None,
                Some(deleted) => {
                    whiteouts.insert(path.clone());
                    if deleted == b".wh..opq" {
                        hidden.insert(parent.to_vec());
                    } else if !deleted.starts_with(b".wh.") {
                        hidden.insert(join(parent, deleted));
                    }
                }
            }
        }
        let hides_all = hidden.contains(&b""[..]);
        let opaque: BTreeSet<Name> =
            hidden.iter().filter(|path| !above(path).iter().any(|a| hidden.contains(a))).cloned().collect();
        let is = |path: &Name| if path.is_empty() { Some(Type::Directory) } else { found.get(path).copied() };
        whiteouts.extend(opaque.iter().filter(|path| is(path).is_none()).cloned());
        let erased = opaque.iter().filter(|path| is(path) == Some(Type::Directory)).cloned().collect();
        let directories = whiteouts.iter().flat_map(|path| above(path)).filter(|path| !path.is_empty()).collect();
        Some(Self { whiteouts, opaque, erased, directories, hides_all })
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Name {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The directories that a path is in, the root among them.
fn above(path: &[u8]) -> Vec<Name> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let root = (!path.is_empty()).then(Vec::new);
    slashes.map(|(slash, _)| path[..slash].to_vec()).chain(root).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Directory,
    Whiteout,
    Other,
}

/// Everything below a directory but what is in a marker.
fn list(directory: &Path, at: &[u8], found: &mut BTreeMap<Name, Type>) {
    let mut below = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a type"));
        let path = join(at, name.as_bytes());
        let kind = match () {
            () if kind.is_dir() => Type::Directory,
            () if kind.is_char_device() && entry.metadata().expect("a device").rdev() == 0 => Type::Whiteout,
            () => Type::Other,
        };
        // In the root it is the publisher's, whatever it is.
        let is_catalog = at.is_empty() && name.as_bytes() == b".cvmfscatalog";
        if kind == Type::Directory && !name.as_bytes().starts_with(b".wh.") && !is_catalog {
            below.push((entry.path(), path.clone()));
        }
        found.insert(path, kind);
    }
    for (directory, at) in below {
        list(&directory, &at, found);
    }
}

/// Puts an entry into the layer, if it can be: through real directories only.
fn place(root: &Path, entry: &[u8]) {
    let (path, target) = match entry.iter().position(|byte| *byte == 1) {
        Some(end) => (&entry[..end], Some(&entry[end + 1..])),
        None => (entry, None),
    };
    let mut here = root.to_owned();
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b"..")).collect();
    let Some((last, parents)) = names.split_last() else { return };
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    for name in parents {
        here.push(OsStr::from_bytes(name));
        let _ = fs::create_dir(&here);
        if !is_directory(&here) {
            return;
        }
    }
    here.push(OsStr::from_bytes(last));
    // What the file system does not take is not in the layer.
    let _ = match target {
        Some(target) => symlink(OsStr::from_bytes(target), &here),
        None if path.ends_with(b"/") => fs::create_dir(&here),
        None => fs::File::create_new(&here).map(drop),
    };
}

fn shown<'a>(paths: impl Iterator<Item = &'a Name>) -> Vec<String> {
    paths.map(|path| path.escape_ascii().to_string()).collect()
}
