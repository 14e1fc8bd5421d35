//! The repository dies, hangs and comes back, under running containers.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::cannot_run;
use crate::common::image::{Entry, Image};
use crate::common::sandbox::{Sandbox, wait_until};
use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::site::{Kind, Site};

/// containerd's limit for a call to a snapshotter does not exist: ours is what bounds a client's wait. Some seconds of
/// this are the client's own, on a machine busy with other tests.
const ANSWER: Duration = Duration::from_secs(20);

/// What `containers` says, by the name of the container.
fn health(node: &Node<'_>, name: &str, options: &[&str]) -> Option<Value> {
    let lines = node.daemon.command(&[&["containers", "--json"][..], options].concat()).ok();
    let mut containers = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    containers.find(|container| container["name"] == name)
}

#[track_caller]
fn assert_health(node: &Node<'_>, name: &str, state: &str) {
    let mut last = None;
    // The kernel may answer from what it has cached for a second.
    let right = wait_until(Duration::from_secs(10), || {
        last = health(node, name, &[]);
        last.as_ref().is_some_and(|container| container["health"]["state"] == state)
    });
    assert!(right, "{name} is not {state}: {last:?}");
    assert_eq!(health(node, name, &["--dead"]).is_some(), state != "alive", "{name}");
}

fn start(node: &Node<'_>, name: &str, reference: &str) {
    node.nerdctl(&["run", "-d", "--network=none", "--name", name, reference, "sleep", "10000"]).ok();
}

/// A container cannot be started, and the client says why and what to do, in time.
#[track_caller]
fn assert_refused(node: &Node<'_>, site: &Site, reference: &str, cause: &str) {
    let begin = Instant::now();
    let message = node.nerdctl(&["run", "--rm", "--network=none", reference, "true"]).err();
    assert!(begin.elapsed() < ANSWER, "{:?}", begin.elapsed());
    let path = site.path().to_string_lossy();
    for part in [cause, "test.cern.ch", &path] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

fn dies(release: Release) {
    if cannot_run() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut site = Site::new(&sandbox, Kind::Cvmfs);
    let node = Node::start(&sandbox, release, &site);
    let in_place = site.publish("test/box:1", &busy_image());
    // Downloaded: it has to live on.
    let local = site.publish("test/local:1", &Image::busybox().layer(vec![Entry::file("local", "data")]));
    let local_layers: Vec<&String> = local.layers.iter().map(|layer| &layer.digest).collect();
    let new = site.publish("test/new:1", &Image::busybox().layer(vec![Entry::file("new", "data")]));
    let [in_place_image, local_image, new_image] =
        ["box", "local", "new"].map(|name| site.registry.reference(&format!("test/{name}:1")));
    site.hide(local_layers.iter().copied());
    site.registry.withhold_nothing();
    node.pull(&local_image);
    site.show(local_layers.iter().copied());
    site.registry.forget();
    node.pull(&in_place_image);
    assert_eq!(site.asked_for(&in_place), [0; 0]);
    start(&node, "depends", &in_place_image);
    start(&node, "local", &local_image);
    node.nerdctl(&["exec", "depends", "sh", "-c", "echo data >/data/written"]).ok();
    assert_health(&node, "depends", "alive");
    let depends = health(&node, "depends", &[]).expect("listed");
    assert_eq!(depends["repositories"], serde_json::json!(["test.cern.ch"]), "{depends}");
    assert_eq!(depends["namespace"], node.containerd.namespace(), "{depends}");
    // The lowest one is that of the other image, and one occurs twice.
    assert_eq!(depends["layers-in-place"], in_place.layers.len() - 2, "{depends}");
    assert_eq!(health(&node, "local", &[]), None, "it uses no repository");

    // It hangs, and comes back.
    site.mock().hang();
    assert_health(&node, "depends", "hung");
    assert_eq!(node.nerdctl(&["exec", "local", "cat", "/local"]).ok(), "data");
    assert_refused(&node, &site, &in_place_image, "does not answer");
    node.nerdctl(&["ps"]).ok();
    site.mock().unhang();
    assert_health(&node, "depends", "alive");
    assert!(wait_until(ANSWER, || node
        .nerdctl(&["run", "--rm", "--network=none", &in_place_image, "true"])
        .status
        .success()));

    // Its client dies.
    site.mock().kill();
    assert_health(&node, "depends", "dead");
    let table = node.daemon.command(&["containers", "--dead"]).ok();
    assert!(table.contains("depends") && table.contains("nerdctl restart"), "{table}");
    assert_refused(&node, &site, &in_place_image, "is disconnected");
    assert_eq!(node.run(&local_image, &["cat", "/local"]), "data");
    // A pull falls back.
    site.registry.forget();
    node.pull(&new_image);
    assert!(!site.asked_for(&new).is_empty());

    // Mounted again: new containers work at once, with nothing restarted, and the old one as soon as it is started again.
    site.mock().remount();
    assert_eq!(node.run(&in_place_image, &["cat", "/data/opaque/new"]), "above");
    start(&node, "later", &in_place_image);
    assert_health(&node, "later", "alive");
    assert_health(&node, "depends", "dead");
    node.nerdctl(&["restart", "--time=1", "depends"]).ok();
    assert_health(&node, "depends", "alive");
    assert_eq!(node.nerdctl(&["exec", "depends", "cat", "/data/written"]).ok(), "data\n");
}

#[test]
fn the_repository_dies_and_comes_back() {
    dies(Release::New);
}

#[test]
fn the_repository_dies_and_comes_back_with_containerd_1_6() {
    dies(Release::Old);
}
