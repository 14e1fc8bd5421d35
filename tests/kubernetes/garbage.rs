//! What kubelet and administrators remove, and what they count.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Fixture, LIMIT};
use testkit::{Entry, Image, wait_until};

fn image(content: &str) -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", content)])
}

pub(crate) fn what_kubelet_counts(fixture: &mut Fixture) {
    fixture.publish("test/counted:1", &image("counted"));
    let write = json!({"command": ["sh", "-c", "head -c 20000000 /dev/urandom >/data/written; sleep 100000"]});
    fixture.apply(&[fixture.pod("counted", "test/counted:1", json!({}), write)]);
    fixture.wait_for_pod("counted");
    let root = fixture.node.daemon.root();
    let du = || -> u64 {
        // Without what the links lead to, as nothing of it is on this disk.
        let output = Command::new("du").args(["-s", "-B1"]).arg(root.join("snapshots")).output().expect("du");
        let text = String::from_utf8(output.stdout).expect("a number");
        text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let info = || -> Value {
        let text = fixture.node.containerd.crictl(&["imagefsinfo", "-o", "json"]).ok();
        let info: Value = serde_json::from_str(&text).expect("JSON");
        info["status"]["imageFilesystems"][0].clone()
    };
    assert_eq!(info()["fsId"]["mountpoint"], *root.to_string_lossy());
    let used = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    // Counted every ten seconds. The directories that hold the snapshots are in one figure and not in the other.
    let close = |counted: u64| counted > 20_000_000 && counted.abs_diff(du()) < 1_000_000;
    assert!(wait_until(LIMIT, || close(used(&info()["usedBytes"]["value"]))), "{} {}", info(), du());

    let summary = || fixture.node.summary(&fixture.cluster);
    let image_fs = || summary()["node"]["runtime"]["imageFs"]["usedBytes"].as_u64().unwrap_or(0);
    assert!(wait_until(LIMIT, || close(image_fs())), "{:#} {}", summary()["node"]["runtime"], du());
    let of_pod = || {
        let summary = summary();
        let pod = summary["pods"].as_array().into_iter().flatten().find(|pod| pod["podRef"]["name"] == "counted");
        pod.and_then(|pod| pod["containers"][0]["rootfs"]["usedBytes"].as_u64()).unwrap_or(0)
    };
    // What the pod has written, and not its image.
    assert!(wait_until(LIMIT, || (20_000_000..20_500_000).contains(&of_pod())), "{}", of_pod());
}

pub(crate) fn crictl_prunes_everything(fixture: &mut Fixture) {
    for name in ["one", "two"] {
        fixture.publish(&format!("test/{name}:1"), &image(name));
        fixture.apply(&[fixture.pod(name, &format!("test/{name}:1"), json!({}), json!({}))]);
        fixture.wait_for_pod(name);
    }
    fixture.delete_all();
    let containerd = &fixture.node.containerd;
    // The containers of pods that are gone from the API may use their images for a moment yet.
    let pruned = wait_until(LIMIT, || {
        containerd.crictl(&["rmi", "--prune"]).ok();
        containerd.crictl(&["images", "-q"]).ok().lines().count() == 1
    });
    assert!(pruned, "{}", containerd.crictl(&["images"]));
    nothing_but_pause(fixture);
}

pub(crate) fn kubelet_removes_images_under_disk_pressure(fixture: &mut Fixture) {
    fixture.publish("test/unused:1", &image("unused"));
    fixture.apply(&[fixture.pod("unused", "test/unused:1", json!({}), json!({}))]);
    fixture.wait_for_pod("unused");
    fixture.delete_all();
    // As if the disk were nearly full.
    fixture.node.restart_kubelet(&json!({
        "evictionHard": {"nodefs.available": "99%", "imagefs.available": "99%"}, "imageMinimumGCAge": "1s",
    }));
    let images = || fixture.node.containerd.crictl(&["images", "-q"]).ok().lines().count();
    let removed = wait_until(LIMIT, || images() == 1);
    // The node takes no pods under pressure: an end of it for the tests that follow.
    fixture.node.restart_kubelet(&json!({}));
    let node = fixture.node.name();
    let healthy = ["wait", "--for=condition=DiskPressure=False", "--timeout=120s", "node", node];
    fixture.cluster.kubectl(&healthy).ok();
    assert!(removed, "{}", fixture.node.containerd.crictl(&["images"]));
    nothing_but_pause(fixture);
}

/// kubelet never removes the image of pods' sandboxes.
#[track_caller]
fn nothing_but_pause(fixture: &Fixture) {
    assert!(wait_until(LIMIT, || fixture.node.snapshots() == 1), "{} snapshots are left", fixture.node.snapshots());
    let list = fixture.node.ctr(&["snapshots", "--snapshotter", "cvmfs-snapshotter", "ls"]).ok();
    assert_eq!(list.lines().count(), 2, "{list}");
}
