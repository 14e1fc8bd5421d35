//! Which layers are requested.

use serde_json::json;

use crate::common::image::{Entry, Image, Written};
use crate::stage::Stage;

fn with(content: &str) -> Image {
    base().layer(vec![Entry::dir("data"), Entry::file("data/own", content)])
}

fn base() -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/shared", "shared")])
}

/// Which layers were requested, by their position.
fn requested(stage: &Stage, image: &Written) -> Vec<usize> {
    stage.site.asked_for(image)
}

pub(crate) fn a_missing_layer_is_downloaded(stage: &mut Stage) {
    let image = stage.publish("test/missing:1", &with("missing"));
    stage.site.hide([&image.layers[2].digest]);
    stage.site.registry.withhold_nothing();
    stage.apply(&[stage.pod("missing", "test/missing:1", json!({}), json!({}))]);
    stage.wait_for_pod("missing");
    assert_eq!(requested(stage, &image), [2]);
    assert_eq!(stage.exec("missing", &["cat", "/data/shared", "/data/own"]), "sharedmissing");
    // One that is neither in the repository nor in the registry is an error of the registry, as without us.
    let lost = stage.publish("test/lost:1", &with("lost"));
    stage.site.hide([&lost.layers[2].digest]);
    stage.apply(&[stage.pod("lost", "test/lost:1", json!({}), json!({}))]);
    let message = stage.wait_for_event("lost", "not found");
    assert!(message.contains(&lost.layers[2].digest), "{message}");
    // It starts by itself as soon as the layer is there.
    stage.site.show([&lost.layers[2].digest]);
    stage.wait_for_pod("lost");
    assert_eq!(stage.exec("lost", &["cat", "/data/own"]), "lost");
}

pub(crate) fn images_share_their_layers(stage: &mut Stage) {
    let first = stage.publish("test/first:1", &with("first"));
    let second = stage.publish("test/second:1", &with("second"));
    let pods = ["first", "second"].map(|name| stage.pod(name, &format!("test/{name}:1"), json!({}), json!({})));
    stage.apply(&pods);
    for name in ["first", "second"] {
        stage.wait_for_pod(name);
        assert_eq!(stage.exec(name, &["cat", "/data/shared", "/data/own"]), format!("shared{name}"));
    }
    assert_eq!((requested(stage, &first), requested(stage, &second)), (vec![], vec![]));
}

pub(crate) fn pull_policy_always_asks_for_the_manifest_alone(stage: &mut Stage) {
    let image = stage.publish("test/always:1", &with("always"));
    let always = |name: &str| stage.pod(name, "test/always:1", json!({}), json!({"imagePullPolicy": "Always"}));
    stage.apply(&[always("one")]);
    stage.wait_for_pod("one");
    stage.site.registry.forget();
    stage.apply(&[always("two")]);
    stage.wait_for_pod("two");
    assert_eq!(requested(stage, &image), [0; 0]);
    let accesses = stage.site.registry.accesses();
    assert!(accesses.iter().any(|access| access.path.ends_with("/always/manifests/1")), "{accesses:?}");

    // A new image under the same name is noticed.
    stage.publish("test/always:1", &with("new"));
    stage.apply(&[always("three")]);
    stage.wait_for_pod("three");
    assert_eq!(stage.exec("one", &["cat", "/data/own"]), "always");
    assert_eq!(stage.exec("three", &["cat", "/data/own"]), "new");
}
