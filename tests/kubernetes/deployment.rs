//! Deployments.

use std::time::Instant;

use serde_json::json;

use crate::common::image::{Entry, Image};
use crate::stage::Stage;

const PODS: usize = 20;

pub(crate) fn twenty_pods_start_without_a_layer(stage: &mut Stage) {
    let image = Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", "content")]);
    let image = stage.publish("test/deployed:1", &image);
    let spec = stage.spec("test/deployed:1", json!({}), json!({}));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "deployed"},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": {"app": "deployed"}},
            "template": {"metadata": {"labels": {"app": "deployed"}}, "spec": spec},
        },
    });
    let start = Instant::now();
    stage.apply(&[deployment]);
    stage.kubectl(&["rollout", "status", "deployment/deployed", "--timeout=120s"]).ok();
    println!("{PODS} pods in place: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(stage.site.asked_for(&image), [0; 0], "{:?}", stage.site.registry.accesses());
    assert!(stage.site.registry.accesses().iter().all(|access| access.status == 200));
}
