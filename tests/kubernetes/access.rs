//! Who gets which image, and what pods cannot do.

use serde_json::json;

use crate::fixture::Fixture;
use testkit::{Entry, Image};

fn image(content: &str) -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", content)])
}

pub(crate) fn a_registry_with_a_password(fixture: &mut Fixture) {
    let image = fixture.publish("private/box:1", &image("private"));
    fixture.site.registry.protect("private/", "user", "secret");
    let server = format!("--docker-server={}", fixture.site.registry.host());
    let secret = ["create", "secret", "docker-registry", "registry", &server];
    fixture.kubectl(&[&secret[..], &["--docker-username=user", "--docker-password=secret"]].concat()).ok();
    let pod = |name: &str, spec| fixture.pod(name, "private/box:1", spec, json!({}));
    let with_secret = json!({"imagePullSecrets": [{"name": "registry"}]});

    // Its layers are on the node, as in the repository; without the manifest there is no image.
    fixture.apply(&[pod("without", json!({}))]);
    let message = fixture.wait_for_event("without", "Failed to pull image");
    assert!(message.contains("401 Unauthorized") || message.contains("authorization failed"), "{message}");
    fixture.apply(&[pod("with", with_secret)]);
    fixture.wait_for_pod("with");
    fixture.exec_prints("with", &["cat", "/data/file"], "private");
    assert_eq!(fixture.site.asked_for(&image), [0; 0]);
    // Kubernetes 1.36 asks again also where the image is on the node already.
    fixture.apply(&[pod("later", json!({}))]);
    let message = fixture.wait_for_event("later", "Failed to pull image");
    assert!(message.contains("401 Unauthorized") || message.contains("authorization failed"), "{message}");
}

pub(crate) fn annotations_of_a_pod_have_no_effect(fixture: &mut Fixture) {
    let written = fixture.publish("test/annotated:1", &image("annotated"));
    // The layer that is lowest in all images here, and so in place on the node.
    let lowest = &written.layers[0];
    let annotated = |name: &str, annotations| {
        let mut pod = fixture.pod(name, "test/annotated:1", json!({}), json!({}));
        pod["metadata"]["annotations"] = annotations;
        pod
    };
    // CRI passes a pod's annotations on when it makes the snapshot of the pause container, if they look like labels.
    let other = fixture.publish("test/never-pulled:1", &image("never pulled"));
    fixture.apply(&[annotated("plain", json!({}))]);
    fixture.wait_for_pod("plain");
    let before = fixture.node.in_place();
    fixture.apply(&[annotated("foreign", json!({"containerd.io/snapshot.ref": other.layers[1].chain_id}))]);
    fixture.wait_for_pod("foreign");
    fixture.exec_prints("foreign", &["cat", "/data/file"], "annotated");
    // That layer did not come in place.
    assert_eq!(fixture.node.in_place(), before);
    // With a layer that containerd knows it refuses the pod itself, whatever the snapshotter.
    fixture.apply(&[annotated("known", json!({"containerd.io/snapshot.ref": lowest.chain_id}))]);
    let message = fixture.wait_for_event("known", "already exists");
    assert!(message.contains("target snapshot"), "{message}");

    // The labels that name a layer have two slashes: no annotation of Kubernetes can.
    let digest = json!({"containerd.io/snapshot/cri.layer-digest": lowest.digest});
    let refused = fixture.try_apply(&[annotated("digest", digest)]).err();
    assert!(refused.contains("a valid label key must"), "{refused}");
}

pub(crate) fn a_user_namespace_fails_at_once(fixture: &mut Fixture) {
    let image = fixture.publish("test/userns:1", &image("userns"));
    // A user namespace needs a network namespace.
    let spec = json!({"hostUsers": false, "hostNetwork": false});
    fixture.apply(&[fixture.pod("userns", "test/userns:1", spec, json!({}))]);
    let message = fixture.wait_for_event("userns", "slow_chown");
    println!("hostUsers: false: {message}");
    assert_eq!(fixture.site.asked_for(&image), [0; 0]);
    // Without it the same pod starts.
    fixture.apply(&[fixture.pod("plain", "test/userns:1", json!({"hostNetwork": false}), json!({}))]);
    fixture.wait_for_pod("plain");
    fixture.exec_prints("plain", &["cat", "/data/file"], "userns");
}
