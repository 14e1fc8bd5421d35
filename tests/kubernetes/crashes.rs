//! Crashes of the parts of a node, and of what serves a repository.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{Fixture, LIMIT};
use testkit::{Entry, Image, wait_until};

fn image(content: &str) -> Image {
    Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", content)])
}

pub(crate) fn the_daemon_was_never_started(fixture: &mut Fixture) {
    fixture.publish("test/early:1", &image("early"));
    // For a containerd that has never connected it makes no difference that there was one before.
    fixture.node.daemon.process().stop().expect("the daemon ends");
    let _ = std::fs::remove_file(fixture.node.daemon.socket());
    fixture.node.containerd.restart();
    fixture.apply(&[fixture.pod("early", "test/early:1", json!({}), json!({}))]);
    let message = fixture.wait_for_event("early", &fixture.node.daemon.socket().display().to_string());
    println!("without the daemon: {message}");
    fixture.node.daemon.restart();
    fixture.wait_for_pod("early");
    fixture.exec_prints("early", &["cat", "/data/file"], "early");
}

/// The containers of the pods with this label, and how often each was started again.
fn containers(fixture: &Fixture, selector: &str) -> Vec<(String, u64)> {
    let pods = fixture.get(&["pods", "--selector", selector]);
    let statuses = pods["items"].as_array().into_iter().flatten().map(|pod| &pod["status"]["containerStatuses"][0]);
    let id = |status: &Value| status["containerID"].as_str().unwrap_or_default().to_owned();
    let mut all =
        statuses.map(|status| (id(status), status["restartCount"].as_u64().unwrap_or(99))).collect::<Vec<_>>();
    all.sort();
    all
}

pub(crate) fn all_parts_are_killed_while_pods_come_and_go(fixture: &mut Fixture) {
    let image = fixture.publish("test/steady:1", &image("steady"));
    let before = fixture.node.snapshots();
    let steady = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "steady"},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "steady"}},
            "template": {
                "metadata": {"labels": {"app": "steady"}}, "spec": fixture.spec("test/steady:1", json!({}), json!({})),
            },
        },
    });
    fixture.apply(&[steady]);
    fixture.kubectl(&["rollout", "status", "deployment/steady", "--timeout=120s"]).ok();
    let running = containers(fixture, "app=steady");
    assert_eq!(running.len(), 4);

    let short =
        fixture.spec("test/steady:1", json!({"restartPolicy": "OnFailure"}), json!({"command": ["cat", "/data/file"]}));
    let churn = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "churn"},
        "spec": {"completions": 40, "parallelism": 4, "backoffLimit": 100, "template": {"spec": short}},
    });
    fixture.apply(&[churn]);
    let succeeded = |fixture: &Fixture| fixture.get(&["job", "churn"])["status"]["succeeded"].as_u64().unwrap_or(0);
    let kill = [&["snapshotter"][..], &["containerd"], &["kubelet"], &["snapshotter", "containerd", "kubelet"]];
    for parts in kill {
        let done = succeeded(fixture);
        let node = &mut fixture.node;
        for part in parts {
            match *part {
                "snapshotter" => node.daemon.signal(Signal::SIGKILL),
                "containerd" => node.containerd.process().signal(Signal::SIGKILL),
                _ => node.kubelet.signal(Signal::SIGKILL),
            }
        }
        for part in parts {
            match *part {
                "snapshotter" => node.daemon.restart(),
                "containerd" => node.containerd.restart(),
                _ => node.restart_kubelet(&json!({})),
            }
        }
        // What ran goes on, and new pods come.
        assert!(wait_until(LIMIT, || succeeded(fixture) >= done + 3), "after {parts:?}");
        assert_eq!(containers(fixture, "app=steady"), running, "after {parts:?}");
    }
    fixture.kubectl(&["wait", "--for=condition=Complete", "--timeout=190s", "job/churn"]).ok();
    assert_eq!(containers(fixture, "app=steady"), running);
    for pod in fixture.pods("app=steady") {
        fixture.exec_prints(&pod, &["cat", "/data/file"], "steady");
    }
    assert_eq!(fixture.site.asked_for(&image), [0; 0]);

    fixture.delete_all();
    let sandboxes = || fixture.node.containerd.crictl(&["pods", "--quiet", "--namespace", fixture.namespace()]).ok();
    assert!(wait_until(LIMIT, || sandboxes().is_empty()), "{}", sandboxes());
    println!("{} leases of killed requests are left", fixture.node.end_leases());
    // Of the image at most its own layers are left, of the pods nothing.
    let left = || fixture.node.snapshots().saturating_sub(before);
    assert!(wait_until(LIMIT, || left() <= image.layers.len()), "{} snapshots are left", left());
}

pub(crate) fn a_repository_dies_and_returns(fixture: &mut Fixture) {
    fixture.publish("test/running:1", &image("running"));
    fixture.publish("test/new:1", &image("new"));
    let probe = json!({"exec": {"command": ["cat", "/data/file"]}, "periodSeconds": 1, "failureThreshold": 1});
    fixture.apply(&[
        fixture.pod("running", "test/running:1", json!({}), json!({"livenessProbe": probe})),
        fixture.pod("crashing", "test/running:1", json!({}), json!({})),
    ]);
    fixture.wait_for_pod("running");
    fixture.wait_for_pod("crashing");

    fixture.site.mock().kill();
    // Its process goes on, and no program of the image can be run: for kubelet a probe by one is neither good nor bad.
    let message = fixture.wait_for_event("running", "Liveness probe errored");
    println!("probed on a dead repository: {message}");
    fixture.kubectl(&["exec", "running", "--", "cat", "/data/file"]).err();
    // One that ends, and one that is new: both wait, and say why.
    let id = fixture.get(&["pod", "crashing"])["status"]["containerStatuses"][0]["containerID"].clone();
    let id = id.as_str().and_then(|id| id.strip_prefix("containerd://")).expect("a container").to_owned();
    fixture.node.containerd.crictl(&["stop", "--timeout=0", &id]).ok();
    fixture.apply(&[fixture.pod("new", "test/new:1", json!({}), json!({}))]);
    for pod in ["crashing", "new"] {
        println!("{pod} on a dead repository: {}", fixture.wait_for_event(pod, "remedy"));
    }
    println!("{}", fixture.kubectl(&["get", "pods"]).ok());

    fixture.site.mock().remount();
    for (pod, content) in [("crashing", "running"), ("new", "new")] {
        fixture.wait_for_pod(pod);
        fixture.exec_prints(pod, &["cat", "/data/file"], content);
    }
    // This one has the dead mount below it until it is made again.
    fixture.kubectl(&["exec", "running", "--", "cat", "/data/file"]).err();
    fixture.kubectl(&["delete", "pod", "running", "--now", "--timeout=60s"]).ok();
    fixture.apply(&[fixture.pod("running", "test/running:1", json!({}), json!({}))]);
    fixture.wait_for_pod("running");
    fixture.exec_prints("running", &["cat", "/data/file"], "running");
}
