//! The snapshotter as a pod of the cluster, from `dist/kubernetes`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::path;
use crate::fixture::Fixture;
use testkit::{Entry, Image, Sandbox, wait_until};

/// Our program and the libraries of this machine that it uses.
fn image(sandbox: &Sandbox) -> Image {
    let stripped = sandbox.join("stripped");
    let strip =
        Command::new("strip").arg("-o").arg(&stripped).arg(testkit::programs::daemon()).status().expect("strip");
    assert!(strip.success());
    let mut layer = ["bin", "tmp"].map(Entry::dir).to_vec();
    layer.push(Entry::file("bin/cvmfs-snapshotter", fs::read(&stripped).expect("our program")).mode(0o755));
    let list = Command::new("ldd").arg(&stripped).output().expect("ldd");
    let list = String::from_utf8(list.stdout).expect("text");
    for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = library.trim_start_matches('/');
        for folder in Path::new(inside).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            layer.insert(0, Entry::dir(path(folder)));
        }
        layer.push(Entry::file(inside, fs::read(library).expect("a library")).mode(0o755));
    }
    Image::new().layer(layer)
}

/// The manifests of `dist/kubernetes`, with the places of this test.
fn manifests(fixture: &Fixture, socket: &Path, root: &Path) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/kubernetes");
    let text = fixture.cluster.kubectl(&["kustomize", path(&dir)]).ok();
    let socket_dir = socket.parent().expect("a folder");
    let text = text.replace("/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock", path(socket));
    let text = text.replace("/run/containerd-cvmfs-grpc", path(socket_dir));
    let text = text.replace("/var/lib/containerd-cvmfs-grpc", path(root));
    let text = text.replace("unpacked.cern.ch", "test.cern.ch").replace("/cvmfs", path(&fixture.sandbox.join("cvmfs")));
    text.replace("cvmfs-snapshotter:0.1.0", &fixture.image("test/cvmfs-snapshotter:1"))
}

pub(crate) fn the_snapshotter_as_a_daemon_set(fixture: &mut Fixture) {
    let image = image(fixture.sandbox);
    image.write(fixture.site.layout(), "test/cvmfs-snapshotter:1");
    let steady = Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", "steady")]);
    let steady = fixture.publish("test/daemonset:1", &steady);
    fixture.site.registry.withhold_nothing();
    fixture.apply(&[fixture.pod("before", "test/daemonset:1", json!({}), json!({}))]);
    fixture.wait_for_pod("before");
    fixture.unpack_sandbox_image();
    for layer in &steady.layers {
        fixture.site.registry.withhold(&layer.digest);
    }

    // On a node that has never had one: kubelet makes the directories.
    let file = fixture.sandbox.join("daemonset.yaml");
    let new = fixture.sandbox.join("new-node");
    fs::write(&file, manifests(fixture, &new.join("run/s.sock"), &new.join("state"))).expect("the manifests");
    fixture.kubectl(&["apply", "-f", path(&file)]).ok();
    fixture.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    let mode = fs::metadata(new.join("state")).expect("its state").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is nobody else's");
    fixture.kubectl(&["delete", "-f", path(&file), "--timeout=120s"]).ok();

    // It takes the place of the one that runs on the host, with its state.
    fixture.node.daemon.process().stop().expect("the daemon ends");
    let (socket, root) = (fixture.node.daemon.socket(), fixture.node.daemon.root());
    fs::write(&file, manifests(fixture, &socket, &root)).expect("the manifests");
    fixture.kubectl(&["apply", "-f", path(&file)]).ok();
    fixture.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    let pod = &fixture.pods("app.kubernetes.io/name=cvmfs-snapshotter")[0];
    fixture.exec_prints("before", &["cat", "/data/file"], "steady");
    assert_eq!(capabilities(fixture, pod), ["chown", "dac_override", "fowner", "fsetid"]);

    let new = Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", "new")]);
    let new = fixture.publish("test/after:1", &new);
    fixture.site.registry.forget();
    fixture.apply(&[fixture.pod("after", "test/after:1", json!({}), json!({}))]);
    fixture.wait_for_pod("after");
    fixture.exec_prints("after", &["cat", "/data/file"], "new");
    assert_eq!(fixture.site.asked_for(&new), [0; 0], "{}", fixture.kubectl(&["logs", pod]));

    // An update: what runs goes on.
    fixture.kubectl(&["rollout", "restart", "daemonset/cvmfs-snapshotter"]).ok();
    fixture.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    fixture.exec_prints("before", &["cat", "/data/file"], "steady");
    fixture.apply(&[fixture.pod("last", "test/after:1", json!({}), json!({}))]);
    fixture.wait_for_pod("last");

    // And back: the state is still the same.
    fixture.kubectl(&["delete", "-f", path(&file), "--ignore-not-found", "--timeout=120s"]).ok();
    // The pod outlives the object that made it, and keeps the state directory until it has ended.
    let is_gone = || fixture.pods("app.kubernetes.io/name=cvmfs-snapshotter").is_empty();
    assert!(wait_until(Duration::from_secs(120), is_gone), "the pod of the DaemonSet does not end");
    fixture.node.daemon.restart();
    fixture.exec_prints("last", &["cat", "/data/file"], "new");
}

/// What the process in a pod may do, by the kernel's word.
fn capabilities(fixture: &Fixture, pod: &str) -> Vec<&'static str> {
    let crictl = |args: &[&str]| fixture.node.containerd.crictl(args).ok();
    let container = crictl(&["ps", "--quiet", "--name", "cvmfs-snapshotter"]);
    let inspect: Value = serde_json::from_str(&crictl(&["inspect", container.trim()])).expect("JSON");
    let pid = &inspect["info"]["pid"];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|error| panic!("{pod}: {error}"));
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("the bounding set");
    let bounding = u64::from_str_radix(bounding.trim(), 16).expect("a set");
    // Their numbers are those of linux/capability.h.
    let names = ["chown", "dac_override", "dac_read_search", "fowner", "fsetid"];
    assert_eq!(bounding >> names.len(), 0, "{bounding:x}");
    names.into_iter().enumerate().filter(|(bit, _)| bounding >> bit & 1 == 1).map(|(_, name)| name).collect()
}
