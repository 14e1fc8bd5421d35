//! The metadata store on a disk that fills up. Needs root, to mount a small file system.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cvmfs_snapshotter::containerd::label::Labels;
use cvmfs_snapshotter::state::metadata::{Error, New, NewKind, Store, Usage};
use nix::mount::{MsFlags, umount};

/// A small file system, for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        nix::mount::mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount(self.0.path()).expect("the store is closed");
    }
}

fn create(store: &Store, key: &str) -> Result<(), Error> {
    let id = store.new_id()?;
    let labels = Labels::from([("containerd.io/snapshot/filler".to_owned(), "x".repeat(4000))]);
    store.create(New { id, key, parent: "", labels, kind: NewKind::Active }).map(drop)
}

#[test]
fn a_full_disk_refuses_changes_loses_nothing_and_needs_no_restart() {
    if !testkit::is_root() {
        return;
    }
    let disk = Small::mount("16m");
    let store = Store::open(disk.path()).unwrap();
    create(&store, "kept").unwrap();
    store.commit("base", "kept", Labels::new(), Usage::default()).unwrap();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    std::fs::set_permissions(&ballast, std::fs::Permissions::from_mode(0o600)).unwrap();

    let mut acknowledged = Vec::new();
    let error = loop {
        let key = format!("k{}", acknowledged.len());
        match create(&store, &key) {
            Ok(()) => acknowledged.push(key),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 10_000, "the disk never fills");
    };
    assert!(error.is_full(), "{error:?}");
    assert!(store.read().unwrap().find("base").unwrap().is_some(), "what is there can be read");
    for key in &acknowledged {
        assert!(store.read().unwrap().find(key).unwrap().is_some(), "{key} was acknowledged");
    }

    std::fs::remove_file(&ballast).unwrap();
    create(&store, "after").expect("works again");
    store.remove("after").unwrap();
    drop(store);
    let store = Store::open(disk.path()).unwrap();
    for key in &acknowledged {
        store.remove(key).unwrap();
    }
    assert_eq!(store.read().unwrap().all().unwrap().len(), 1);
    drop(store);
}
