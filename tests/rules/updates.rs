//! Updates and labels (core/snapshots/storage/metastore.go, bolt.go `UpdateInfo`).

use containerd_snapshots::tonic::Code;

use crate::start;
use testkit::{Labels, labels};

#[test]
fn masks_name_what_is_changed() {
    let Some((_daemon, client)) = start() else { return };
    let before = labels(&[("a", "1"), ("b.c", "2"), ("d", "3")]);
    client.prepare("k", "", &before).unwrap();
    let original = client.stat("k").unwrap();
    let reset = || drop(client.update("k", &before, &[]).unwrap());
    let new = labels(&[("a", "9"), ("b.c", "8"), ("e", "7")]);
    for (mask, expected) in [
        (&[][..], new.clone()),
        (&["labels"][..], new.clone()),
        (&["labels.a"][..], labels(&[("a", "9"), ("b.c", "2"), ("d", "3")])),
        (&["labels.b.c", "labels.d"][..], labels(&[("a", "1"), ("b.c", "8")])),
        (&["labels.e", "labels.f"][..], labels(&[("a", "1"), ("b.c", "2"), ("d", "3"), ("e", "7")])),
    ] {
        reset();
        let info = client.update("k", &new, mask).unwrap();
        assert_eq!(info.labels, expected, "{mask:?}");
        assert_eq!((info.kind, &info.parent, &info.created_at), (2, &String::new(), &original.created_at));
        assert_eq!(client.stat("k").unwrap(), info);
    }
    reset();
    let refused = client.update("k", &new, &["labels", "parent"]).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(client.stat("k").unwrap().labels, before, "nothing of it was done");
}

#[test]
fn rule_20_labels_are_replaced_at_commit_and_empty_ones_are_removed() {
    let Some((_daemon, client)) = start() else { return };
    client.prepare("k", "", &labels(&[("a", "1"), ("empty", "")])).unwrap();
    assert_eq!(client.stat("k").unwrap().labels, labels(&[("a", "1")]));
    client.commit("c", "k", &labels(&[("b", "2"), ("empty", "")])).unwrap();
    assert_eq!(client.stat("c").unwrap().labels, labels(&[("b", "2")]), "none is inherited");
    client.update("c", &labels(&[("b", "")]), &["labels.b"]).unwrap();
    assert_eq!(client.stat("c").unwrap().labels, Labels::new());
    client.view("v", "c", &labels(&[("x", "")])).unwrap();
    assert_eq!(client.stat("v").unwrap().labels, Labels::new());
}

#[test]
fn labels_have_a_limit() {
    let Some((_daemon, client)) = start() else { return };
    let fits = labels(&[("a", &"x".repeat(128 * 1024 - 1))]);
    let large = labels(&[("a", &"x".repeat(128 * 1024))]);
    client.prepare("k", "", &fits).unwrap();
    assert_eq!(client.stat("k").unwrap().labels, fits);
    let refused = [
        client.prepare("l", "", &large).map(drop),
        client.view("l", "", &large).map(drop),
        client.commit("l", "k", &large),
        client.update("k", &large, &[]).map(drop),
        // Each is small enough, both together are not.
        client.update("k", &labels(&[("b", "x")]), &["labels.b"]).map(drop),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().code(), Code::InvalidArgument, "{index}");
    }
    assert_eq!(client.keys(), ["k"]);
    assert_eq!(client.stat("k").unwrap().labels, fits);
}

#[test]
fn messages_of_several_mebibytes_are_taken_and_sent() {
    let Some((_daemon, client)) = start() else { return };
    // Empty labels are none: only the message is large.
    let key = "x".repeat(1024 * 1024);
    let large: Labels = (0..8).map(|n| (format!("{n}{key}"), String::new())).collect();
    client.prepare("k", "", &large).unwrap();
    client.remove("k").unwrap();
    for n in 0..100 {
        client.view(&format!("{n}"), "", &labels(&[("a", &"x".repeat(120 * 1024))])).unwrap();
    }
    let messages = client.list_messages(&[]).unwrap();
    assert_eq!(messages.iter().map(|message| message.info.len()).collect::<Vec<_>>(), [100]);
}
