//! Which layers are requested.

use serde_json::json;

use crate::fixture::Fixture;
use testkit::{Entry, Image, Written};

fn with(content: &str) -> Image {
    base().layer(vec![Entry::dir("data"), Entry::file("data/own", content)])
}

fn base() -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/shared", "shared")])
}

/// Which layers were requested, by their position.
fn requested(fixture: &Fixture, image: &Written) -> Vec<usize> {
    fixture.site.asked_for(image)
}

pub(crate) fn a_missing_layer_is_downloaded(fixture: &mut Fixture) {
    let image = fixture.publish("test/missing:1", &with("missing"));
    fixture.site.hide([&image.layers[2].digest]);
    fixture.site.registry.withhold_nothing();
    fixture.apply(&[fixture.pod("missing", "test/missing:1", json!({}), json!({}))]);
    fixture.wait_for_pod("missing");
    assert_eq!(requested(fixture, &image), [2]);
    fixture.exec_prints("missing", &["cat", "/data/shared", "/data/own"], "sharedmissing");
    // One that is neither in the repository nor in the registry is an error of the registry, as without us.
    let lost = fixture.publish("test/lost:1", &with("lost"));
    fixture.site.hide([&lost.layers[2].digest]);
    fixture.apply(&[fixture.pod("lost", "test/lost:1", json!({}), json!({}))]);
    let message = fixture.wait_for_event("lost", "not found");
    assert!(message.contains(&lost.layers[2].digest), "{message}");
    // It starts by itself as soon as the layer is there.
    fixture.site.show([&lost.layers[2].digest]);
    fixture.wait_for_pod("lost");
    fixture.exec_prints("lost", &["cat", "/data/own"], "lost");
}

pub(crate) fn images_share_their_layers(fixture: &mut Fixture) {
    let first = fixture.publish("test/first:1", &with("first"));
    let second = fixture.publish("test/second:1", &with("second"));
    let pods = ["first", "second"].map(|name| fixture.pod(name, &format!("test/{name}:1"), json!({}), json!({})));
    fixture.apply(&pods);
    for name in ["first", "second"] {
        fixture.wait_for_pod(name);
        fixture.exec_prints(name, &["cat", "/data/shared", "/data/own"], &format!("shared{name}"));
    }
    assert_eq!((requested(fixture, &first), requested(fixture, &second)), (vec![], vec![]));
}

pub(crate) fn pull_policy_always_asks_for_the_manifest_alone(fixture: &mut Fixture) {
    let image = fixture.publish("test/always:1", &with("always"));
    let always = |name: &str| fixture.pod(name, "test/always:1", json!({}), json!({"imagePullPolicy": "Always"}));
    fixture.apply(&[always("one")]);
    fixture.wait_for_pod("one");
    fixture.site.registry.forget();
    fixture.apply(&[always("two")]);
    fixture.wait_for_pod("two");
    assert_eq!(requested(fixture, &image), [0; 0]);
    let accesses = fixture.site.registry.accesses();
    assert!(accesses.iter().any(|access| access.path.ends_with("/always/manifests/1")), "{accesses:?}");

    // A new image under the same name is noticed.
    fixture.publish("test/always:1", &with("new"));
    fixture.apply(&[always("three")]);
    fixture.wait_for_pod("three");
    fixture.exec_prints("one", &["cat", "/data/own"], "always");
    fixture.exec_prints("three", &["cat", "/data/own"], "new");
}
