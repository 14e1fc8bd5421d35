//! The code for each error (core/snapshots/storage/bolt.go), which containerd's decisions hang on.

use containerd_snapshots::tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented};

use crate::start;
use testkit::{Labels, labels};

fn code<T: std::fmt::Debug>(
    result: Result<T, containerd_snapshots::tonic::Status>,
) -> containerd_snapshots::tonic::Code {
    result.unwrap_err().code()
}

#[test]
fn prepare_and_view() {
    let Some((_daemon, client)) = start() else { return };
    let none = Labels::new();
    client.committed("base", "");
    client.prepare("active", "base", &none).unwrap();
    client.view("view", "base", &none).unwrap();
    for taken in ["base", "active", "view"] {
        assert_eq!(code(client.prepare(taken, "", &none)), AlreadyExists, "{taken}");
        assert_eq!(code(client.view(taken, "base", &none)), AlreadyExists, "{taken}");
        // Also where the parent is wrong: the key is looked at first.
        assert_eq!(code(client.prepare(taken, "missing", &none)), AlreadyExists, "{taken}");
    }
    for (parent, expected) in [("missing", NotFound), ("active", InvalidArgument), ("view", InvalidArgument)] {
        assert_eq!(code(client.prepare("new", parent, &none)), expected, "{parent}");
        assert_eq!(code(client.view("new", parent, &none)), expected, "{parent}");
    }
    assert_eq!(code(client.prepare("", "", &none)), InvalidArgument);
    assert_eq!(code(client.stat("new")), NotFound);
}

#[test]
fn mounts() {
    let Some((_daemon, client)) = start() else { return };
    client.committed("base", "");
    assert_eq!(code(client.mounts("missing")), NotFound);
    assert_eq!(code(client.mounts("base")), FailedPrecondition);
}

#[test]
fn commit() {
    let Some((_daemon, client)) = start() else { return };
    let none = Labels::new();
    client.committed("base", "");
    client.view("view", "base", &none).unwrap();
    client.prepare("active", "base", &none).unwrap();
    for (name, key, expected) in [
        ("base", "active", AlreadyExists),
        ("base", "missing", AlreadyExists),
        ("view", "active", AlreadyExists),
        ("active", "active", AlreadyExists),
        ("new", "missing", NotFound),
        ("new", "view", FailedPrecondition),
        ("new", "base", FailedPrecondition),
        ("", "active", InvalidArgument),
    ] {
        assert_eq!(code(client.commit(name, key, &none)), expected, "{name:?} {key}");
    }
    assert_eq!(client.stat("active").unwrap().kind, 2, "untouched");
}

#[test]
fn the_rest() {
    let Some((_daemon, client)) = start() else { return };
    assert_eq!(code(client.remove("missing")), NotFound);
    assert_eq!(code(client.stat("missing")), NotFound);
    assert_eq!(code(client.stat("")), NotFound);
    assert_eq!(code(client.usage("missing")), NotFound);
    assert_eq!(code(client.update("missing", &labels(&[("a", "b")]), &[])), NotFound);
    client.committed("base", "");
    for path in ["parent", "kind", "name", "", "label", "labels_", "created_at", "Labels.x"] {
        assert_eq!(code(client.update("base", &Labels::new(), &[path])), InvalidArgument, "{path}");
    }
    for filter in ["name=", "name==", "\"", "a b", "labels.\"x", "name==a,", "name~=/(/"] {
        assert_eq!(code(client.list(&[filter])), InvalidArgument, "{filter}");
    }
    assert_ne!(client.cleanup().map_err(|status| status.code()), Err(Unimplemented));
}
