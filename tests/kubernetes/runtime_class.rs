//! Our snapshotter for some pods only.

use serde_json::{Value, json};

use crate::common::image::{Entry, Image};
use crate::node::{Default, Node};
use crate::stage::Stage;

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

pub(crate) fn overlayfs_beside_our_default(stage: &mut Stage) {
    let ours = stage.publish("test/ours:1", &image("ours"));
    let theirs = stage.publish("test/theirs:1", &image("theirs"));
    stage.publish("test/early:1", &image("early"));
    stage.site.registry.withhold_nothing();
    // Pulled without the annotation it is in place, as may be the image of the sandboxes, which the pods of both use:
    // containerd has no layers of them to unpack.
    let class = json!({"runtimeClassName": "overlayfs"});
    stage.apply(&[runtime_class("overlayfs"), stage.pod("early", "test/early:1", class.clone(), json!({}))]);
    let message = stage.wait_for_event("early", "not found");
    println!("an image is in place only: {message}");
    stage.unpack_sandbox_image();
    stage.kubectl(&["delete", "pod", "early"]).ok();
    stage.apply(&[
        stage.pod("ours", "test/ours:1", json!({}), json!({})),
        annotated(stage.pod("theirs", "test/theirs:1", class, json!({})), "overlayfs"),
    ]);
    for name in ["ours", "theirs"] {
        stage.wait_for_pod(name);
        assert_eq!(stage.exec(name, &["cat", "/data/file"]), name);
    }
    assert_eq!(stage.site.registry.asked_for(&ours.layers[1].digest), 0);
    // The lowest layer is that of the sandboxes' image, and may be there from before.
    assert!(stage.site.asked_for(&theirs).contains(&1));
}

pub(crate) fn ours_beside_a_default_of_overlayfs(stage: &mut Stage) {
    let ours = stage.publish("test/ours:2", &image("ours"));
    let theirs = stage.publish("test/theirs:2", &image("theirs"));
    let gated = stage.publish("test/gated:2", &image("gated"));
    stage.site.registry.withhold_nothing();
    for layer in ours.layers[1..].iter().chain(&gated.layers[1..]) {
        stage.site.registry.withhold(&layer.digest);
    }
    let mut node = Node::start(stage.sandbox, "127.0.0.2", &stage.cluster, &stage.site, Default::Overlayfs);
    let on_node = |mut pod: Value| {
        pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] = json!("127.0.0.2");
        pod
    };
    let class = json!({"runtimeClassName": "cvmfs"});
    stage.apply(&[
        runtime_class("cvmfs"),
        on_node(annotated(stage.pod("ours", "test/ours:2", class.clone(), json!({})), "cvmfs")),
        on_node(stage.pod("theirs", "test/theirs:2", json!({}), json!({}))),
    ]);
    for name in ["ours", "theirs"] {
        stage.wait_for_pod(name);
        assert_eq!(stage.exec(name, &["cat", "/data/file"]), name);
    }
    // They share the lowest layer, which the sandboxes' image has, too.
    assert_eq!(stage.site.registry.asked_for(&ours.layers[1].digest), 0);
    assert_eq!(stage.site.asked_for(&theirs), [0, 1]);
    assert!(node.in_place() >= 1);

    // Without the annotation, by kubelet's word.
    node.restart_kubelet(&json!({"featureGates": {"RuntimeClassInImageCriApi": true}}));
    stage.apply(&[on_node(stage.pod("gated", "test/gated:2", class, json!({})))]);
    stage.wait_for_pod("gated");
    assert_eq!(stage.exec("gated", &["cat", "/data/file"]), "gated");
    assert_eq!(stage.site.registry.asked_for(&gated.layers[1].digest), 0);
    stage.delete_all();
    drop(node);
}
