//! What pods can be.

use std::fs;

use serde_json::json;

use crate::cluster::path;
use crate::fixture::{Fixture, LIMIT};
use testkit::{Entry, Image, wait_until};

fn image() -> Image {
    // For `kubectl cp`.
    let tar = vec![Entry::dir("bin"), Entry::symlink("bin/tar", "busybox")];
    Image::busybox().layer(tar).layer(vec![Entry::dir("data"), Entry::file("data/file", "content")])
}

fn shell(script: &str) -> serde_json::Value {
    json!({"command": ["sh", "-c", script]})
}

pub(crate) fn init_and_ephemeral_containers(fixture: &mut Fixture) {
    let written = fixture.publish("test/pod:1", &image());
    let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
    let init = json!({
        "name": "init", "image": fixture.image("test/pod:1"), "command": ["cp", "/data/file", "/shared/"],
        "volumeMounts": shared,
    });
    let spec = json!({"volumes": [{"name": "shared", "emptyDir": {}}], "initContainers": [init]});
    fixture.apply(&[fixture.pod("pod", "test/pod:1", spec, json!({"volumeMounts": shared}))]);
    fixture.wait_for_pod("pod");
    fixture.exec_prints("pod", &["cat", "/shared/file"], "content");

    let other =
        fixture.publish("test/debug:1", &image().layer(vec![Entry::dir("data"), Entry::file("data/tool", "a tool")]));
    let debug = format!("--image={}", fixture.image("test/debug:1"));
    fixture
        .kubectl(&["debug", "pod", &debug, "--container=debug", "--profile=general", "--", "cat", "/data/tool"])
        .ok();
    let logs = || fixture.kubectl(&["logs", "pod", "--container=debug"]).stdout;
    assert!(wait_until(LIMIT, || logs() == "a tool"), "{:#}", fixture.get(&["pod", "pod"])["status"]);
    assert_eq!((fixture.site.asked_for(&written), fixture.site.asked_for(&other)), (vec![], vec![]));
}

pub(crate) fn exec_cp_and_logs(fixture: &mut Fixture) {
    fixture.publish("test/pod:1", &image());
    fixture.apply(&[fixture.pod("pod", "test/pod:1", json!({}), shell("echo started; sleep 100000"))]);
    fixture.wait_for_pod("pod");
    // containerd writes the log on its own time.
    assert!(wait_until(LIMIT, || fixture.kubectl(&["logs", "pod"]).stdout == "started\n"));
    fixture.exec_prints("pod", &["cat", "/data/file"], "content");

    let (file, back) = (fixture.sandbox.join("copied"), fixture.sandbox.join("back"));
    fs::write(&file, "from outside").expect("a file");
    fixture.kubectl(&["cp", path(&file), "pod:/data/copied"]).ok();
    // What is written in a container hides nothing of the layer and is not in it.
    fixture.exec_prints("pod", &["cat", "/data/copied", "/data/file"], "from outsidecontent");
    fixture.exec("pod", &["sh", "-c", "echo changed >/data/file"]);
    fixture.kubectl(&["cp", "pod:data/file", path(&back)]).ok();
    assert_eq!(fs::read_to_string(&back).expect("the copy"), "changed\n");
    fixture.apply(&[fixture.pod("other", "test/pod:1", json!({}), json!({}))]);
    fixture.wait_for_pod("other");
    fixture.exec_prints("other", &["ls", "/data"], "file\n");
    fixture.exec_prints("other", &["cat", "/data/file"], "content");
}

pub(crate) fn users_and_groups(fixture: &mut Fixture) {
    let private = Entry::file("data/private", "for user").owner(1000, 1000).mode(0o600);
    fixture.publish("test/users:1", &image().layer(vec![Entry::dir("data"), private]).user("user"));
    let numeric = json!({"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 2000});
    let volume = json!([{"name": "scratch", "emptyDir": {}}]);
    let mounts = json!({"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]});
    fixture.apply(&[
        fixture.pod("named", "test/users:1", json!({}), json!({})),
        fixture.pod("numeric", "test/users:1", json!({"securityContext": numeric, "volumes": volume}), mounts),
        fixture.pod("root", "test/users:1", json!({"securityContext": {"runAsUser": 0}}), json!({})),
        fixture.pod("unsure", "test/users:1", json!({"securityContext": {"runAsNonRoot": true}}), json!({})),
    ]);
    for name in ["named", "numeric", "root"] {
        fixture.wait_for_pod(name);
        fixture.exec_prints(name, &["cat", "/data/private"], "for user");
    }
    fixture.exec_prints("named", &["id", "-u"], "1000\n");
    fixture.exec_prints("root", &["id", "-u"], "0\n");
    fixture.exec_prints("numeric", &["id"], "uid=1000(user) gid=1000(user) groups=1000(user),2000\n");
    fixture.exec_prints("numeric", &["stat", "-c", "%g", "/scratch"], "2000\n");
    // kubelet does not look a name up in an image, whatever the snapshotter.
    let message = fixture.wait_for_event("unsure", "non-numeric user");
    assert!(message.contains("cannot verify user is non-root"), "{message}");
}

pub(crate) fn volumes_of_images(fixture: &mut Fixture) {
    let inside = vec![Entry::dir("volume").mode(0o750), Entry::file("volume/file", "of the image").owner(1000, 1000)];
    let declared = fixture.publish("test/volume:1", &image().layer(inside).volume("/volume"));
    let data = Image::new().layer(vec![Entry::dir("model"), Entry::file("model/weights", "numbers")]);
    let data =
        fixture.publish("test/data:1", &data.layer(vec![Entry::dir("model"), Entry::file("model/card", "text")]));
    let volumes = json!([{"name": "data", "image": {"reference": fixture.image("test/data:1")}}]);
    let mounts = json!({"volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}]});
    fixture.apply(&[
        fixture.pod("declared", "test/volume:1", json!({}), json!({})),
        fixture.pod("image", "test/volume:1", json!({"volumes": volumes}), mounts),
    ]);
    fixture.wait_for_pod("declared");
    fixture.exec_prints("declared", &["cat", "/volume/file"], "of the image");
    fixture.exec_prints("declared", &["stat", "-c", "%a %u", "/volume", "/volume/file"], "750 0\n644 1000\n");
    fixture.wait_for_pod("image");
    fixture.exec_prints("image", &["cat", "/data/model/weights", "/data/model/card"], "numberstext");
    let refused = fixture.kubectl(&["exec", "image", "--", "touch", "/data/model/new"]).err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!((fixture.site.asked_for(&declared), fixture.site.asked_for(&data)), (vec![], vec![]));
}

pub(crate) fn a_read_only_root(fixture: &mut Fixture) {
    fixture.publish("test/pod:1", &image());
    let container = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    fixture.apply(&[fixture.pod("pod", "test/pod:1", json!({}), container)]);
    fixture.wait_for_pod("pod");
    fixture.exec_prints("pod", &["cat", "/data/file"], "content");
    let refused = fixture.kubectl(&["exec", "pod", "--", "touch", "/data/new"]).err();
    assert!(refused.contains("Read-only file system"), "{refused}");
}

pub(crate) fn a_static_pod(fixture: &mut Fixture) {
    let image = fixture.publish("test/static:1", &image());
    let mut pod = fixture.pod("static", "test/static:1", json!({}), json!({}));
    // kubelet puts the node's name behind the pod's.
    pod["metadata"]["namespace"] = json!(fixture.namespace());
    let file = fixture.node.static_pods().join("pod.json");
    fs::write(&file, pod.to_string()).expect("a manifest");
    let name = format!("static-{}", fixture.node.name());
    let there = wait_until(LIMIT, || fixture.kubectl(&["get", "pod", &name]).status.success());
    assert!(there, "{}", fixture.kubectl(&["get", "pods"]));
    fixture.wait_for_pod(&name);
    fixture.exec_prints(&name, &["cat", "/data/file"], "content");
    assert_eq!(fixture.site.asked_for(&image), [0; 0]);
    fs::remove_file(&file).expect("the manifest");
    assert!(wait_until(LIMIT, || !fixture.kubectl(&["get", "pod", &name]).status.success()));
}

pub(crate) fn a_job_of_a_hundred_short_pods(fixture: &mut Fixture) {
    let image = fixture.publish("test/job:1", &image());
    let before = fixture.node.snapshots();
    let mut spec =
        fixture.spec("test/job:1", json!({"restartPolicy": "Never"}), json!({"command": ["cat", "/data/file"]}));
    spec["terminationGracePeriodSeconds"] = json!(1);
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"completions": 100, "parallelism": 10, "backoffLimit": 0, "template": {"spec": spec}},
    });
    let start = std::time::Instant::now();
    fixture.apply(&[job]);
    fixture.kubectl(&["wait", "--for=condition=Complete", "--timeout=190s", "job/job"]).ok();
    println!("a job of 100 pods: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(fixture.site.asked_for(&image), [0; 0]);
    fixture.kubectl(&["delete", "job", "job", "--cascade=foreground", "--timeout=120s"]).ok();
    // The image stays, its containers do not.
    let left = || fixture.node.snapshots().saturating_sub(before);
    assert!(wait_until(LIMIT, || left() <= image.layers.len()), "{} snapshots are left", left());
}
