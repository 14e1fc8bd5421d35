//! Deployments.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::runtime_class::runtime_class;
use testkit::{Entry, Image};

const PODS: usize = 20;
const LAYERS: u64 = 6;

/// The time from `kubectl apply` until all pods of a Deployment are ready.
fn time(fixture: &Fixture, name: &str, spec: Value, annotations: Value) -> Duration {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": spec},
        },
    });
    let start = Instant::now();
    fixture.apply(&[deployment]);
    fixture.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=150s"]).ok();
    start.elapsed()
}

pub(crate) fn twenty_pods_start_without_a_layer(fixture: &mut Fixture) {
    // Numbers that do not compress.
    let mut random = fastrand::Rng::with_seed(1);
    let made = (0..LAYERS).fold(Image::busybox(), |image, layer| {
        let content = (0..20_000_000).map(|_| random.u8(..)).collect::<Vec<u8>>();
        image.layer(vec![Entry::dir("data"), Entry::file(&format!("data/{layer}"), content)])
    });
    let image = fixture.publish("test/deployed:1", &made);
    let spec = fixture.spec("test/deployed:1", json!({}), json!({}));
    let ours = time(fixture, "ours", spec, json!({}));
    assert_eq!(fixture.site.asked_for(&image), [0; 0], "{:?}", fixture.site.registry.accesses());
    // What is requested is there: manifests and configurations.
    assert!(fixture.site.registry.accesses().iter().all(|access| access.status == 200));
    fixture.delete_all();

    fixture.site.registry.withhold_nothing();
    fixture.unpack_sandbox_image();
    fixture.apply(&[runtime_class("overlayfs")]);
    // By another name, as kubelet does not pull what the node has.
    made.write(fixture.site.layout(), "test/again:1");
    let spec = fixture.spec("test/again:1", json!({"runtimeClassName": "overlayfs"}), json!({}));
    let theirs = time(fixture, "theirs", spec, json!({"io.containerd.cri.runtime-handler": "overlayfs"}));
    for layer in &image.layers {
        assert!(fixture.site.registry.asked_for(&layer.digest) > 0);
    }
    let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
    println!("{PODS} pods: {ours:.1} s in place, {theirs:.1} s with overlayfs, a ratio of {:.2}", theirs / ours);
}
