use std::collections::HashMap;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use redb::ReadableDatabase;

use super::tables::{FORMAT, META, SHAPES};
use super::*;
use crate::containerd::label::{Labels, TARGET};
use crate::digest::Digest;
use crate::overlay::plan::{Plan, Shape};

struct Scratch {
    directory: tempfile::TempDir,
    store: Option<Store>,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Some(Store::open(directory.path()).unwrap());
        Self { directory, store }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(self.directory.path()).unwrap());
    }

    fn active(&self, key: &str, parent: &str) -> Result<u64, Error> {
        let id = self.store().new_id()?;
        self.store().create(New { id, key, parent, labels: Labels::new(), kind: NewKind::Active })?;
        Ok(id)
    }

    fn committed(&self, name: &str, parent: &str, target: &str) {
        self.active("tmp", parent).unwrap();
        let labels = Labels::from([(TARGET.to_owned(), target.to_owned())]);
        self.store().commit(name, "tmp", labels, Usage { bytes: 1, inodes: 2 }).unwrap();
    }

    fn remote(&self, key: &str, parent: &str, target: &str, layer: u8) -> Created {
        let id = self.store().new_id().unwrap();
        let labels = Labels::from([(TARGET.to_owned(), target.to_owned())]);
        let plan = StoredPlan::new(format!("content {layer}"), &plan(layer));
        let layer = Digest::from_bytes([layer; 32]);
        let kind = NewKind::Remote { layer, target, plan: &plan };
        self.store().create(New { id, key, parent, labels, kind }).unwrap()
    }

    fn names(&self, lookups: &[Lookup]) -> Vec<String> {
        let found = self.store().read().unwrap().lookup(lookups).unwrap();
        found.map(|snapshot| snapshot.unwrap().name).collect()
    }
}

/// A plan that tells the layer, and needs a cover.
fn plan(layer: u8) -> Plan {
    Plan { whiteouts: vec![vec![layer]], ..Plan::default() }
}

#[test]
fn what_was_stored_is_there_after_opening_again() {
    let mut scratch = Scratch::new();
    scratch.committed("base", "", "sha256:x");
    let before = scratch.store().read().unwrap().get("base").unwrap();
    scratch.reopen();
    assert_eq!(scratch.store().read().unwrap().get("base").unwrap(), before);
    assert_eq!(before.created, before.updated);
    assert_eq!(before.content, Content::Local(Some(Usage { bytes: 1, inodes: 2 })));
}

#[test]
fn ids_are_never_given_out_twice() {
    let mut scratch = Scratch::new();
    let mut seen = HashMap::new();
    for round in 0..3 {
        for _ in 0..1500 {
            let id = scratch.store().new_id().unwrap();
            assert!(id > 0);
            assert_eq!(seen.insert(id, round), None, "{id}");
        }
        scratch.reopen();
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let mut scratch = Scratch::new();
    scratch.store = None;
    let path = Store::path(scratch.directory.path());
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", FORMAT + 1).unwrap();
        transaction.commit().unwrap();
    }
    let error = Store::open(scratch.directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Format { found: 3, known: 2, .. }), "{error}");
    let database = redb::Database::open(&path).unwrap();
    let format = database.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(format, FORMAT + 1);
}

#[test]
fn a_second_process_and_a_damaged_file_are_refused() {
    let scratch = Scratch::new();
    assert!(matches!(Store::open(scratch.directory.path()), Err(OpenError::InUse(_))));
    let other = tempfile::tempdir().unwrap();
    std::fs::write(Store::path(other.path()), "not a database, but long enough to be looked at".repeat(200)).unwrap();
    let error = Store::open(other.path()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. } | OpenError::Unreadable { .. }), "{error:?}");
}

#[test]
fn rule_05_remote_commits_are_keyed_by_target_and_parent() {
    let scratch = Scratch::new();
    scratch.committed("a", "", "sha256:a");
    scratch.committed("b", "", "sha256:a");
    let Created::New(on_a) = scratch.remote("k1", "a", "sha256:t", 1) else { panic!("it exists already") };
    let Created::New(on_b) = scratch.remote("k2", "b", "sha256:t", 1) else { panic!("it exists already") };
    assert_ne!(on_a.name, on_b.name);
    assert!(matches!(scratch.remote("k3", "a", "sha256:t", 1), Created::Existing(existing) if existing == on_a));
    let reader = scratch.store().read().unwrap();
    assert_eq!(reader.existing("sha256:t", "b").unwrap(), Some(on_b));
    assert_eq!(reader.existing("sha256:t", "").unwrap(), None);
    assert!(reader.find("k1").unwrap().is_none(), "nothing is left under the key");
}

#[test]
fn a_local_commit_with_the_same_target_is_no_answer() {
    let scratch = Scratch::new();
    scratch.committed("other/1/x", "", "sha256:t");
    assert_eq!(scratch.store().read().unwrap().existing("sha256:t", "").unwrap(), None);
    assert!(matches!(scratch.remote("k", "", "sha256:t", 1), Created::New(_)));
}

#[test]
fn lookups_follow_every_mutation() {
    let scratch = Scratch::new();
    let by_target = |t: &str| scratch.names(&[Lookup::Target(t.into())]);
    let by_parent = |p: &str| scratch.names(&[Lookup::Parent(p.into())]);
    scratch.committed("a", "", "sha256:1");
    scratch.committed("b", "a", "sha256:2");
    assert_eq!((by_target("sha256:1"), by_target("sha256:2")), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!((by_parent(""), by_parent("a"), by_parent("b")), (vec!["a".to_owned()], vec!["b".to_owned()], vec![]));
    assert_eq!(scratch.names(&[Lookup::Name("b".into()), Lookup::Target("sha256:1".into())]), ["a", "b"]);
    scratch
        .store()
        .update("b", |mut labels| {
            labels.insert(TARGET.into(), "sha256:3".into());
            labels
        })
        .unwrap();
    assert_eq!((by_target("sha256:2"), by_target("sha256:3")), (vec![], vec!["b".to_owned()]));
    scratch.store().remove("b").unwrap();
    assert_eq!((by_target("sha256:3"), by_parent("a")), (vec![], vec![]));
}

#[test]
fn refusals_change_nothing() {
    let scratch = Scratch::new();
    scratch.committed("base", "", "sha256:x");
    scratch.active("key", "base").unwrap();
    let refuse = |result: Result<u64, Error>| result.unwrap_err().to_string();
    insta::assert_snapshot!(refuse(scratch.active("key", "")), @r#"snapshot "key" exists already"#);
    insta::assert_snapshot!(refuse(scratch.active("x", "nowhere")), @r#"parent snapshot "nowhere" does not exist"#);
    insta::assert_snapshot!(refuse(scratch.active("x", "key")), @r#"parent snapshot "key" is not committed"#);
    let store = scratch.store();
    let commit = |name, key| store.commit(name, key, Labels::new(), Usage::default()).unwrap_err().to_string();
    insta::assert_snapshot!(commit("base", "nothing"), @r#"snapshot "base" exists already"#);
    insta::assert_snapshot!(commit("new", "nothing"), @r#"snapshot "nothing" does not exist"#);
    insta::assert_snapshot!(commit("new", "base"), @r#"snapshot "base" is committed, not active"#);
    insta::assert_snapshot!(store.remove("base").unwrap_err().to_string(), @r#"cannot remove snapshot "base": it is the parent of other snapshots, remove those first"#);
    insta::assert_snapshot!(store.remove("nothing").unwrap_err().to_string(), @r#"snapshot "nothing" does not exist"#);
    assert_eq!(store.read().unwrap().all().unwrap().len(), 2);
}

#[test]
fn a_plan_goes_with_the_last_user_of_its_layer() {
    let scratch = Scratch::new();
    let layer = Digest::from_bytes([7; 32]);
    let Created::New(first) = scratch.remote("k1", "", "sha256:1", 7) else { panic!("it exists already") };
    let Created::New(second) = scratch.remote("k2", "", "sha256:2", 7) else { panic!("it exists already") };
    let stored = || {
        let reader = scratch.store().read().unwrap();
        (reader.plan(layer).unwrap(), reader.shape(layer).unwrap())
    };
    let expected = StoredPlan::new("content 7".to_owned(), &plan(7));
    assert_eq!(stored(), (Some(expected.clone()), Some(plan(7).shape())));
    assert_eq!(expected.decode(), Some(plan(7)));
    assert_eq!(scratch.store().remove(&first.name).unwrap().unused_layer, None);
    assert!(stored().0.is_some());
    assert_eq!(scratch.store().remove(&second.name).unwrap().unused_layer, Some(layer));
    assert_eq!(stored(), (None, None));
    let late = StoredPlan::new("late".to_owned(), &plan(8));
    scratch.store().replace_plan(layer, &late).unwrap();
    assert_eq!(stored(), (None, None), "not kept for a layer that nothing uses");
}

/// As in a store of format 1 with a plan that could not be decoded.
#[test]
fn a_plan_without_a_shape_is_there_and_can_be_replaced() {
    let mut scratch = Scratch::new();
    scratch.remote("k", "", "sha256:1", 7);
    let layer = Digest::from_bytes([7; 32]);
    scratch.store = None;
    let database = redb::Database::open(Store::path(scratch.directory.path())).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(SHAPES).unwrap().remove(layer.as_bytes()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    scratch.reopen();
    let shape = || scratch.store().read().unwrap().plan(layer).unwrap().map(|plan| plan.shape);
    assert_eq!(shape(), Some(Shape::default()));
    scratch.store().replace_plan(layer, &StoredPlan::new("now".to_owned(), &plan(7))).unwrap();
    assert_eq!(shape(), Some(plan(7).shape()));
}

#[test]
fn readers_see_the_state_in_which_they_began() {
    let scratch = Scratch::new();
    scratch.committed("a", "", "sha256:1");
    let reader = scratch.store().read().unwrap();
    scratch.store().remove("a").unwrap();
    assert!(reader.find("a").unwrap().is_some());
    assert!(scratch.store().read().unwrap().find("a").unwrap().is_none());
}

#[test]
fn a_store_that_another_process_is_about_to_make_is_in_use() {
    let root = tempfile::tempdir().unwrap();
    let other = File::open(root.path()).unwrap();
    other.lock().unwrap();
    assert!(matches!(Store::open(root.path()), Err(OpenError::InUse(_))));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    drop(other);
    Store::open(root.path()).unwrap();
}

#[test]
fn a_panic_in_the_middle_of_a_change_changes_nothing() {
    let mut scratch = Scratch::new();
    scratch.active("before", "").unwrap();
    let change = || scratch.store().update("before", |_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(change)).is_err());
    assert_eq!(scratch.store().read().unwrap().get("before").unwrap().labels, Labels::new());
    for _ in 0..2 {
        let labels = scratch.store().update("before", |_| Labels::from([("a".into(), "b".into())])).unwrap().labels;
        assert_eq!(labels.len(), 1);
        scratch.active("after", "").unwrap();
        scratch.store().remove("after").unwrap();
        scratch.reopen();
    }
}

/// A store that version 0.1.0 wrote: two layers in place, the upper one with deletions, a committed and an active snapshot
/// on top of them, and a view.
#[test]
fn a_store_of_format_1_is_taken_over_with_all_that_it_knows() {
    // From the folder of the package, where tests run: a sandbox may not let a test through the folders above.
    let file = Path::new("tests/data/store-format-1.redb.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(File::open(file).unwrap()).read_to_end(&mut bytes).unwrap();
    let root = tempfile::tempdir().unwrap();
    std::fs::write(Store::path(root.path()), bytes).unwrap();

    let target = |n: u8| Digest::from_bytes([n; 32]).to_string();
    let [lower, upper] = [0x11, 0x12].map(|n| Digest::from_bytes([n; 32]));
    let check = |store: &Store| {
        let reader = store.read().unwrap();
        let all: Vec<Snapshot> = reader.all().unwrap().map(Result::unwrap).collect();
        let kinds: Vec<_> = all.iter().map(|snapshot| (snapshot.id, snapshot.name.as_str(), snapshot.kind)).collect();
        let [remote_1, remote_2] = [(1, 1), (2, 2)].map(|(n, id): (u8, u64)| format!("{}@{id}", target(n)));
        let expected = [
            (3, "default/4/local", Kind::Committed),
            (4, "default/5/container", Kind::Active),
            (5, "default/6/view", Kind::View),
            (1, remote_1.as_str(), Kind::Committed),
            (2, remote_2.as_str(), Kind::Committed),
        ];
        assert_eq!(kinds, expected);
        let chain = reader.chain("default/4/local").unwrap();
        assert_eq!(chain.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(chain[0].content, Content::Local(Some(Usage { bytes: 4096, inodes: 3 })));
        assert_eq!(chain[1].content, Content::Remote(upper));
        assert_eq!(reader.existing(&target(2), &remote_1).unwrap().unwrap().id, 2);
        let [plain, deleting] = [lower, upper].map(|layer| reader.plan(layer).unwrap().unwrap());
        assert_eq!((plain.identity.as_str(), deleting.identity.as_str()), ("catalog 1", "catalog 2"));
        for (layer, stored) in [(lower, &plain), (upper, &deleting)] {
            let plan = stored.decode().unwrap();
            assert_eq!(reader.shape(layer).unwrap(), Some(plan.shape()));
        }
        assert_eq!(plain.shape, Shape::default());
        assert_eq!(deleting.shape, Shape { cover: true, seal: true, erase: true, hides_all: false });
        assert_eq!(deleting.decode().unwrap().whiteouts[2], b"\xff");
    };
    let store = Store::open(root.path()).unwrap();
    check(&store);
    drop(store);
    let store = Store::open(root.path()).unwrap();
    check(&store);
    let next = store.new_id().unwrap();
    assert!(next > 6, "{next} was given out before");
    store.remove("default/6/view").unwrap();
    drop(store);
    let database = redb::Database::open(Store::path(root.path())).unwrap();
    let format = database.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(format, 2);
}
