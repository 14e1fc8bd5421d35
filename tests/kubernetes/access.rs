//! Who gets which image, and what pods cannot do.

use serde_json::json;

use crate::common::image::{Entry, Image};
use crate::stage::Stage;

fn image(content: &str) -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", content)])
}

pub(crate) fn a_registry_with_a_password(stage: &mut Stage) {
    let image = stage.publish("private/box:1", &image("private"));
    stage.site.registry.protect("private/", "user", "secret");
    let server = format!("--docker-server={}", stage.site.registry.host());
    let secret = ["create", "secret", "docker-registry", "registry", &server];
    stage.kubectl(&[&secret[..], &["--docker-username=user", "--docker-password=secret"]].concat()).ok();
    let pod = |name: &str, spec| stage.pod(name, "private/box:1", spec, json!({}));
    let with_secret = json!({"imagePullSecrets": [{"name": "registry"}]});

    // Its layers are on the node, as in the repository; without the manifest there is no image.
    stage.apply(&[pod("without", json!({}))]);
    let message = stage.wait_for_event("without", "Failed to pull image");
    assert!(message.contains("401 Unauthorized") || message.contains("authorization failed"), "{message}");
    stage.apply(&[pod("with", with_secret)]);
    stage.wait_for_pod("with");
    assert_eq!(stage.exec("with", &["cat", "/data/file"]), "private");
    assert_eq!(stage.site.asked_for(&image), [0; 0]);
    // Kubernetes 1.36 asks again also where the image is on the node already.
    stage.apply(&[pod("later", json!({}))]);
    let message = stage.wait_for_event("later", "Failed to pull image");
    assert!(message.contains("401 Unauthorized") || message.contains("authorization failed"), "{message}");
}

pub(crate) fn annotations_of_a_pod_have_no_effect(stage: &mut Stage) {
    let written = stage.publish("test/annotated:1", &image("annotated"));
    // The layer that is lowest in all images here, and so in place on the node.
    let lowest = &written.layers[0];
    let annotated = |name: &str, annotations| {
        let mut pod = stage.pod(name, "test/annotated:1", json!({}), json!({}));
        pod["metadata"]["annotations"] = annotations;
        pod
    };
    // CRI passes a pod's annotations on when it makes the snapshot of the pause container, if they look like labels.
    let other = stage.publish("test/never-pulled:1", &image("never pulled"));
    stage.apply(&[annotated("plain", json!({}))]);
    stage.wait_for_pod("plain");
    let before = stage.node.in_place();
    stage.apply(&[annotated("foreign", json!({"containerd.io/snapshot.ref": other.layers[1].chain_id}))]);
    stage.wait_for_pod("foreign");
    assert_eq!(stage.exec("foreign", &["cat", "/data/file"]), "annotated");
    // That layer did not come in place.
    assert_eq!(stage.node.in_place(), before);
    // With a layer that containerd knows it refuses the pod itself, whatever the snapshotter.
    stage.apply(&[annotated("known", json!({"containerd.io/snapshot.ref": lowest.chain_id}))]);
    let message = stage.wait_for_event("known", "already exists");
    assert!(message.contains("target snapshot"), "{message}");

    // The labels that name a layer have two slashes: no annotation of Kubernetes can.
    let digest = json!({"containerd.io/snapshot/cri.layer-digest": lowest.digest});
    let refused = stage.try_apply(&[annotated("digest", digest)]).err();
    assert!(refused.contains("a valid label key must"), "{refused}");
}

pub(crate) fn a_user_namespace_fails_at_once(stage: &mut Stage) {
    let image = stage.publish("test/userns:1", &image("userns"));
    // A user namespace needs a network namespace.
    let spec = json!({"hostUsers": false, "hostNetwork": false});
    stage.apply(&[stage.pod("userns", "test/userns:1", spec, json!({}))]);
    let message = stage.wait_for_event("userns", "slow_chown");
    println!("hostUsers: false: {message}");
    assert_eq!(stage.site.asked_for(&image), [0; 0]);
    // Without it the same pod starts.
    stage.apply(&[stage.pod("plain", "test/userns:1", json!({"hostNetwork": false}), json!({}))]);
    stage.wait_for_pod("plain");
    assert_eq!(stage.exec("plain", &["cat", "/data/file"]), "userns");
}
