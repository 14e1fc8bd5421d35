//! What pods can be.

use std::fs;

use serde_json::json;

use crate::cluster::path;
use crate::common::image::{Entry, Image};
use crate::common::sandbox::wait_until;
use crate::stage::{LIMIT, Stage};

fn image() -> Image {
    // For `kubectl cp`.
    let tar = vec![Entry::dir("bin"), Entry::symlink("bin/tar", "busybox")];
    Image::busybox().layer(tar).layer(vec![Entry::dir("data"), Entry::file("data/file", "content")])
}

fn shell(script: &str) -> serde_json::Value {
    json!({"command": ["sh", "-c", script]})
}

pub(crate) fn init_and_ephemeral_containers(stage: &mut Stage) {
    let written = stage.publish("test/pod:1", &image());
    let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
    let init = json!({
        "name": "init", "image": stage.image("test/pod:1"), "command": ["cp", "/data/file", "/shared/"],
        "volumeMounts": shared,
    });
    let spec = json!({"volumes": [{"name": "shared", "emptyDir": {}}], "initContainers": [init]});
    stage.apply(&[stage.pod("pod", "test/pod:1", spec, json!({"volumeMounts": shared}))]);
    stage.wait_for_pod("pod");
    assert_eq!(stage.exec("pod", &["cat", "/shared/file"]), "content");

    let other =
        stage.publish("test/debug:1", &image().layer(vec![Entry::dir("data"), Entry::file("data/tool", "a tool")]));
    let debug = format!("--image={}", stage.image("test/debug:1"));
    stage.kubectl(&["debug", "pod", &debug, "--container=debug", "--profile=general", "--", "cat", "/data/tool"]).ok();
    let logs = || stage.kubectl(&["logs", "pod", "--container=debug"]).stdout;
    assert!(wait_until(LIMIT, || logs() == "a tool"), "{:#}", stage.get(&["pod", "pod"])["status"]);
    assert_eq!((stage.site.asked_for(&written), stage.site.asked_for(&other)), (vec![], vec![]));
}

pub(crate) fn exec_cp_and_logs(stage: &mut Stage) {
    stage.publish("test/pod:1", &image());
    stage.apply(&[stage.pod("pod", "test/pod:1", json!({}), shell("echo started; sleep 100000"))]);
    stage.wait_for_pod("pod");
    assert_eq!(stage.kubectl(&["logs", "pod"]).ok(), "started\n");
    assert_eq!(stage.exec("pod", &["cat", "/data/file"]), "content");

    let (file, back) = (stage.sandbox.join("copied"), stage.sandbox.join("back"));
    fs::write(&file, "from outside").expect("a file");
    stage.kubectl(&["cp", path(&file), "pod:/data/copied"]).ok();
    // What is written in a container hides nothing of the layer and is not in it.
    assert_eq!(stage.exec("pod", &["cat", "/data/copied", "/data/file"]), "from outsidecontent");
    stage.exec("pod", &["sh", "-c", "echo changed >/data/file"]);
    stage.kubectl(&["cp", "pod:data/file", path(&back)]).ok();
    assert_eq!(fs::read_to_string(&back).expect("the copy"), "changed\n");
    stage.apply(&[stage.pod("other", "test/pod:1", json!({}), json!({}))]);
    stage.wait_for_pod("other");
    assert_eq!(stage.exec("other", &["ls", "/data"]), "file\n");
    assert_eq!(stage.exec("other", &["cat", "/data/file"]), "content");
}

pub(crate) fn users_and_groups(stage: &mut Stage) {
    let private = Entry::file("data/private", "for user").owner(1000, 1000).mode(0o600);
    stage.publish("test/users:1", &image().layer(vec![Entry::dir("data"), private]).user("user"));
    let numeric = json!({"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 2000});
    let volume = json!([{"name": "scratch", "emptyDir": {}}]);
    let mounts = json!({"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]});
    stage.apply(&[
        stage.pod("named", "test/users:1", json!({}), json!({})),
        stage.pod("numeric", "test/users:1", json!({"securityContext": numeric, "volumes": volume}), mounts),
        stage.pod("root", "test/users:1", json!({"securityContext": {"runAsUser": 0}}), json!({})),
        stage.pod("unsure", "test/users:1", json!({"securityContext": {"runAsNonRoot": true}}), json!({})),
    ]);
    for name in ["named", "numeric", "root"] {
        stage.wait_for_pod(name);
        assert_eq!(stage.exec(name, &["cat", "/data/private"]), "for user");
    }
    assert_eq!(stage.exec("named", &["id", "-u"]), "1000\n");
    assert_eq!(stage.exec("root", &["id", "-u"]), "0\n");
    assert_eq!(stage.exec("numeric", &["id"]), "uid=1000(user) gid=1000(user) groups=1000(user),2000\n");
    assert_eq!(stage.exec("numeric", &["stat", "-c", "%g", "/scratch"]), "2000\n");
    // kubelet does not look a name up in an image, whatever the snapshotter.
    let message = stage.wait_for_event("unsure", "non-numeric user");
    assert!(message.contains("cannot verify user is non-root"), "{message}");
}

pub(crate) fn volumes_of_images(stage: &mut Stage) {
    let inside = vec![Entry::dir("volume").mode(0o750), Entry::file("volume/file", "of the image").owner(1000, 1000)];
    let declared = stage.publish("test/volume:1", &image().layer(inside).volume("/volume"));
    let data = Image::new().layer(vec![Entry::dir("model"), Entry::file("model/weights", "numbers")]);
    let data = stage.publish("test/data:1", &data.layer(vec![Entry::dir("model"), Entry::file("model/card", "text")]));
    let volumes = json!([{"name": "data", "image": {"reference": stage.image("test/data:1")}}]);
    let mounts = json!({"volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}]});
    stage.apply(&[
        stage.pod("declared", "test/volume:1", json!({}), json!({})),
        stage.pod("image", "test/volume:1", json!({"volumes": volumes}), mounts),
    ]);
    stage.wait_for_pod("declared");
    assert_eq!(stage.exec("declared", &["cat", "/volume/file"]), "of the image");
    assert_eq!(stage.exec("declared", &["stat", "-c", "%a %u", "/volume", "/volume/file"]), "750 0\n644 1000\n");
    stage.wait_for_pod("image");
    assert_eq!(stage.exec("image", &["cat", "/data/model/weights", "/data/model/card"]), "numberstext");
    let refused = stage.kubectl(&["exec", "image", "--", "touch", "/data/model/new"]).err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!((stage.site.asked_for(&declared), stage.site.asked_for(&data)), (vec![], vec![]));
}

pub(crate) fn a_read_only_root(stage: &mut Stage) {
    stage.publish("test/pod:1", &image());
    let container = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    stage.apply(&[stage.pod("pod", "test/pod:1", json!({}), container)]);
    stage.wait_for_pod("pod");
    assert_eq!(stage.exec("pod", &["cat", "/data/file"]), "content");
    let refused = stage.kubectl(&["exec", "pod", "--", "touch", "/data/new"]).err();
    assert!(refused.contains("Read-only file system"), "{refused}");
}

pub(crate) fn a_static_pod(stage: &mut Stage) {
    let image = stage.publish("test/static:1", &image());
    let mut pod = stage.pod("static", "test/static:1", json!({}), json!({}));
    // kubelet puts the node's name behind the pod's.
    pod["metadata"]["namespace"] = json!(stage.namespace());
    let file = stage.node.static_pods().join("pod.json");
    fs::write(&file, pod.to_string()).expect("a manifest");
    let name = format!("static-{}", stage.node.name());
    let there = wait_until(LIMIT, || stage.kubectl(&["get", "pod", &name]).status.success());
    assert!(there, "{}", stage.kubectl(&["get", "pods"]));
    stage.wait_for_pod(&name);
    assert_eq!(stage.exec(&name, &["cat", "/data/file"]), "content");
    assert_eq!(stage.site.asked_for(&image), [0; 0]);
    fs::remove_file(&file).expect("the manifest");
    assert!(wait_until(LIMIT, || !stage.kubectl(&["get", "pod", &name]).status.success()));
}

pub(crate) fn a_job_of_a_hundred_short_pods(stage: &mut Stage) {
    let image = stage.publish("test/job:1", &image());
    let before = stage.node.snapshots();
    let mut spec =
        stage.spec("test/job:1", json!({"restartPolicy": "Never"}), json!({"command": ["cat", "/data/file"]}));
    spec["terminationGracePeriodSeconds"] = json!(1);
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"completions": 100, "parallelism": 10, "backoffLimit": 0, "template": {"spec": spec}},
    });
    let start = std::time::Instant::now();
    stage.apply(&[job]);
    stage.kubectl(&["wait", "--for=condition=Complete", "--timeout=190s", "job/job"]).ok();
    println!("a job of 100 pods: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(stage.site.asked_for(&image), [0; 0]);
    stage.kubectl(&["delete", "job", "job", "--cascade=foreground", "--timeout=120s"]).ok();
    // The image stays, its containers do not.
    let left = || stage.node.snapshots().saturating_sub(before);
    assert!(wait_until(LIMIT, || left() <= image.layers.len()), "{} snapshots are left", left());
}
