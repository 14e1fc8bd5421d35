//! The snapshotter as a pod of the cluster, from `dist/kubernetes`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::path;
use crate::common::daemon;
use crate::common::image::{Entry, Image};
use crate::common::sandbox::Sandbox;
use crate::stage::Stage;

/// Our program and the libraries of this machine that it uses.
fn image(sandbox: &Sandbox) -> Image {
    let stripped = sandbox.join("stripped");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(daemon::program()).status().expect("strip");
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
fn manifests(stage: &Stage, socket: &Path, root: &Path) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/kubernetes");
    let text = stage.cluster.kubectl(&["kustomize", path(&dir)]).ok();
    let socket_dir = socket.parent().expect("a folder");
    let text = text.replace("/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock", path(socket));
    let text = text.replace("/run/containerd-cvmfs-grpc", path(socket_dir));
    let text = text.replace("/var/lib/containerd-cvmfs-grpc", path(root));
    let text = text.replace("unpacked.cern.ch", "test.cern.ch").replace("/cvmfs", path(&stage.sandbox.join("cvmfs")));
    text.replace("cvmfs-snapshotter:0.1.0", &stage.image("test/cvmfs-snapshotter:1"))
}

pub(crate) fn the_snapshotter_as_a_daemon_set(stage: &mut Stage) {
    let image = image(stage.sandbox);
    image.write(stage.site.layout(), "test/cvmfs-snapshotter:1");
    let steady = Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", "steady")]);
    let steady = stage.publish("test/daemonset:1", &steady);
    stage.site.registry.withhold_nothing();
    stage.apply(&[stage.pod("before", "test/daemonset:1", json!({}), json!({}))]);
    stage.wait_for_pod("before");
    stage.unpack_sandbox_image();
    for layer in &steady.layers {
        stage.site.registry.withhold(&layer.digest);
    }

    // On a node that has never had one: kubelet makes the directories.
    let file = stage.sandbox.join("daemonset.yaml");
    let new = stage.sandbox.join("new-node");
    fs::write(&file, manifests(stage, &new.join("run/s.sock"), &new.join("state"))).expect("the manifests");
    stage.kubectl(&["apply", "-f", path(&file)]).ok();
    stage.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    let mode = fs::metadata(new.join("state")).expect("its state").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is nobody else's");
    stage.kubectl(&["delete", "-f", path(&file), "--timeout=120s"]).ok();

    // It takes the place of the one that runs on the host, with its state.
    stage.node.daemon.process().stop().expect("the daemon ends");
    let (socket, root) = (stage.node.daemon.socket(), stage.node.daemon.root());
    fs::write(&file, manifests(stage, &socket, &root)).expect("the manifests");
    stage.kubectl(&["apply", "-f", path(&file)]).ok();
    stage.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    let pod = &stage.pods("app.kubernetes.io/name=cvmfs-snapshotter")[0];
    assert_eq!(stage.exec("before", &["cat", "/data/file"]), "steady");
    assert_eq!(capabilities(stage, pod), ["chown", "dac_override", "fowner", "fsetid"]);

    let new = Image::busybox().layer(vec![Entry::dir("data"), Entry::file("data/file", "new")]);
    let new = stage.publish("test/after:1", &new);
    stage.site.registry.forget();
    stage.apply(&[stage.pod("after", "test/after:1", json!({}), json!({}))]);
    stage.wait_for_pod("after");
    assert_eq!(stage.exec("after", &["cat", "/data/file"]), "new");
    assert_eq!(stage.site.asked_for(&new), [0; 0], "{}", stage.kubectl(&["logs", pod]));

    // An update: what runs goes on.
    stage.kubectl(&["rollout", "restart", "daemonset/cvmfs-snapshotter"]).ok();
    stage.kubectl(&["rollout", "status", "daemonset/cvmfs-snapshotter", "--timeout=120s"]).ok();
    assert_eq!(stage.exec("before", &["cat", "/data/file"]), "steady");
    stage.apply(&[stage.pod("last", "test/after:1", json!({}), json!({}))]);
    stage.wait_for_pod("last");

    // And back: the state is still the same.
    stage.kubectl(&["delete", "-f", path(&file), "--ignore-not-found", "--timeout=120s"]).ok();
    stage.node.daemon.restart();
    assert_eq!(stage.exec("last", &["cat", "/data/file"]), "new");
}

/// What the process in a pod may do, by the kernel's word.
fn capabilities(stage: &Stage, pod: &str) -> Vec<&'static str> {
    let crictl = |args: &[&str]| stage.node.containerd.crictl(args).ok();
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
