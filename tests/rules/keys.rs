//! Keys are any text, times are exact (core/snapshots/testsuite, core/metadata/snapshot.go `createKey`).

use std::time::SystemTime;

use containerd_snapshots::tonic::Code;

use crate::start;
use testkit::{Labels, labels, times};

#[test]
fn any_text_is_a_key() {
    let Some((daemon, client)) = start() else { return };
    let long = format!("k8s.io/7/{}", "x".repeat(10 * 1024));
    let wide = format!("k8s.io/8/{}", "\u{1f4a9} %\"\\\n".repeat(1024));
    let keys =
        ["default/7/extract-1-x sha256:1b", "a/../../b", "/", ".", "..", "a\0b", " ", "\u{fc}", "a\nb", &long, &wide];
    for key in keys {
        let unknown = client.stat(key).unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{key:.40}");
        client.prepare(key, "", &Labels::new()).unwrap();
        assert_eq!(client.prepare(key, "", &Labels::new()).unwrap_err().code(), Code::AlreadyExists, "{key:.40}");
        let name = format!("{key} committed");
        client.commit(&name, key, &Labels::new()).unwrap();
        client.view(key, &name, &Labels::new()).unwrap();
        assert_eq!(client.stat(key).unwrap().parent, name);
        assert_eq!(client.remove(&name).unwrap_err().code(), Code::FailedPrecondition);
        let quoted = format!("name=={}", serde_json::to_string(key).unwrap());
        assert_eq!(client.list(&[&quoted]).unwrap().len(), 1, "{key:.40}");
        client.remove(key).unwrap();
        client.remove(&name).unwrap();
        // Used again after the removal.
        client.prepare(key, "", &Labels::new()).unwrap();
        client.remove(key).unwrap();
        client.prepare(key, "missing", &Labels::new()).unwrap_err();
    }
    client.cleanup().unwrap();
    assert!(client.keys().is_empty() && daemon.ids().is_empty(), "{:?}", daemon.ids());
}

#[test]
fn a_committed_name_is_free_again_after_its_removal() {
    let Some((_daemon, client)) = start() else { return };
    for _ in 0..3 {
        client.committed("base", "");
        client.committed("top", "base");
        client.remove("top").unwrap();
        client.remove("base").unwrap();
    }
    assert!(client.keys().is_empty());
}

#[test]
fn times_are_those_of_the_call_to_the_nanosecond() {
    let Some((_daemon, client)) = start() else { return };
    let around = |call: &mut dyn FnMut() -> containerd_snapshots::api::snapshots::v1::Info| {
        let before = SystemTime::now();
        let info = call();
        let (created, updated) = times(&info);
        (before <= created && updated <= SystemTime::now(), created, updated, info)
    };
    let none = Labels::new();
    let (inside, created, updated, info) = around(&mut || {
        client.prepare("a", "", &none).unwrap();
        client.stat("a").unwrap()
    });
    assert!(inside && created == updated && info.kind == 2);
    let (inside, committed, updated, info) = around(&mut || {
        client.commit("c", "a", &none).unwrap();
        client.stat("c").unwrap()
    });
    assert!(inside && committed == updated && committed > created && info.kind == 3);
    let (inside, created, updated, info) = around(&mut || {
        client.view("v", "c", &none).unwrap();
        client.stat("v").unwrap()
    });
    assert!(inside && created == updated && info.kind == 1);
    let before = SystemTime::now();
    let info = client.update("c", &labels(&[("x", "y")]), &[]).unwrap();
    let (created, updated) = times(&info);
    assert!(created == committed && before <= updated && updated <= SystemTime::now());
    assert_eq!(client.stat("c").unwrap(), info);
    assert_eq!(client.list(&["name==c"]).unwrap(), [info]);
}
