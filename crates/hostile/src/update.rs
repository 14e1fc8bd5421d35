//! Update: a mask changes exactly the labels that it names, and one that names anything else changes nothing.
//!
//! An input as text, a line each: `-name=value` of the labels before, `+name=value` of those sent, `?path` of the mask.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cvmfs_snapshotter::containerd::label::{self, Labels};
use cvmfs_snapshotter::in_place::Repositories;
use cvmfs_snapshotter::snapshotter::Snapshotter;
use cvmfs_snapshotter::state::State;

use crate::private_root::PrivateRoot;

const KEY: &str = "default/1/a";

/// The root directory in which inputs are checked.
pub fn private_root() -> PrivateRoot {
    PrivateRoot::new(make, check)
}

fn make() -> Snapshotter {
    let root = std::path::Path::new("/state");
    let state = State::open(root).expect("the state directory");
    let snapshotter = Snapshotter::new(state, Repositories::new(Vec::new()), Duration::ZERO);
    snapshotter.prepare(KEY, "", Labels::new()).expect("a snapshot");
    snapshotter
}

fn check(snapshotter: &mut Snapshotter, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut before, mut sent, mut mask) = (HashMap::new(), HashMap::new(), Vec::new());
    for line in text.lines() {
        let label = |text: &str| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        match line.split_at_checked(1) {
            Some(("-", text)) => before.extend([label(text)]),
            Some(("+", text)) => sent.extend([label(text)]),
            Some(("?", path)) => mask.push(path.to_owned()),
            _ => {}
        }
    }
    let (Ok(before), Ok(sent)) = (label::accept(before), label::accept(sent)) else { return };
    let reset = snapshotter.update(KEY, &before, &[]).expect("an update of all labels");
    assert_eq!(reset.labels, before);

    let result = snapshotter.update(KEY, &sent, &mask);
    let now = snapshotter.stat(KEY).expect("the snapshot");
    if mask.iter().any(|path| path != "labels" && !path.starts_with("labels.")) {
        let error = result.expect_err("a path that is no label's").to_string();
        assert!(error.contains("only labels can be changed"), "{error}");
        assert_eq!(now, reset);
        return;
    }
    let updated = result.expect("an update of labels");
    assert_eq!(now, updated);
    let expected = if mask.is_empty() || mask.iter().any(|path| path == "labels") {
        sent
    } else {
        let named = |name: &str| mask.iter().any(|path| path["labels.".len()..] == *name);
        let kept = before.into_iter().filter(|(name, _)| !named(name));
        kept.chain(sent.into_iter().filter(|(name, _)| named(name))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(updated.labels, expected, "{mask:?}");
    assert_eq!((updated.kind, updated.created, &updated.parent), (reset.kind, reset.created, &reset.parent));
    assert!(updated.updated >= reset.updated);
}
