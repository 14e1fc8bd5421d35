//! Our snapshotter for some pods only.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::node::{Default, Node};
use testkit::{Entry, Image};

fn image(content: &str) -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", content)])
}

/// What containerd 2.4 and older want to know when they pull: kubelet says it only with a feature gate.
fn annotated(mut pod: Value, handler: &str) -> Value {
    pod["metadata"]["annotations"] = json!({"io.containerd.cri.runtime-handler": handler});
    pod
}

pub(crate) fn runtime_class(name: &str) -> Value {
    json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name})
}

pub(crate) fn overlayfs_beside_our_default(fixture: &mut Fixture) {
    let ours = fixture.publish("test/ours:1", &image("ours"));
    let theirs = fixture.publish("test/theirs:1", &image("theirs"));
    fixture.publish("test/early:1", &image("early"));
    fixture.site.registry.withhold_nothing();
    // Pulled without the annotation it is in place, as may be the image of the sandboxes, which the pods of both use:
    // containerd has no layers of them to unpack.
    let class = json!({"runtimeClassName": "overlayfs"});
    fixture.apply(&[runtime_class("overlayfs"), fixture.pod("early", "test/early:1", class.clone(), json!({}))]);
    let message = fixture.wait_for_event("early", "not found");
    println!("an image is in place only: {message}");
    fixture.unpack_sandbox_image();
    fixture.kubectl(&["delete", "pod", "early"]).ok();
    fixture.apply(&[
        fixture.pod("ours", "test/ours:1", json!({}), json!({})),
        annotated(fixture.pod("theirs", "test/theirs:1", class, json!({})), "overlayfs"),
    ]);
    for name in ["ours", "theirs"] {
        fixture.wait_for_pod(name);
        fixture.exec_prints(name, &["cat", "/data/file"], name);
    }
    assert_eq!(fixture.site.registry.asked_for(&ours.layers[1].digest), 0);
    // The lowest layer is that of the sandboxes' image, and may be there from before.
    assert!(fixture.site.asked_for(&theirs).contains(&1));
}

pub(crate) fn ours_beside_a_default_of_overlayfs(fixture: &mut Fixture) {
    let ours = fixture.publish("test/ours:2", &image("ours"));
    let theirs = fixture.publish("test/theirs:2", &image("theirs"));
    let gated = fixture.publish("test/gated:2", &image("gated"));
    fixture.site.registry.withhold_nothing();
    for layer in ours.layers[1..].iter().chain(&gated.layers[1..]) {
        fixture.site.registry.withhold(&layer.digest);
    }
    let mut node = Node::start(fixture.sandbox, "127.0.0.2", &fixture.cluster, &fixture.site, Default::Overlayfs);
    let on_node = |mut pod: Value| {
        pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] = json!("127.0.0.2");
        pod
    };
    let class = json!({"runtimeClassName": "cvmfs"});
    fixture.apply(&[
        runtime_class("cvmfs"),
        on_node(annotated(fixture.pod("ours", "test/ours:2", class.clone(), json!({})), "cvmfs")),
        on_node(fixture.pod("theirs", "test/theirs:2", json!({}), json!({}))),
    ]);
    for name in ["ours", "theirs"] {
        fixture.wait_for_pod(name);
        fixture.exec_prints(name, &["cat", "/data/file"], name);
    }
    // They share the lowest layer, which the sandboxes' image has, too.
    assert_eq!(fixture.site.registry.asked_for(&ours.layers[1].digest), 0);
    assert_eq!(fixture.site.asked_for(&theirs), [0, 1]);
    assert!(node.in_place() >= 1);

    // Without the annotation, by kubelet's word.
    node.restart_kubelet(&json!({"featureGates": {"RuntimeClassInImageCriApi": true}}));
    fixture.apply(&[on_node(fixture.pod("gated", "test/gated:2", class, json!({})))]);
    fixture.wait_for_pod("gated");
    fixture.exec_prints("gated", &["cat", "/data/file"], "gated");
    assert_eq!(fixture.site.registry.asked_for(&gated.layers[1].digest), 0);
    fixture.delete_all();
    drop(node);
}
