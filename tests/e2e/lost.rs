//! The metadata is lost for good: the daemon says how to go on, and that leads to a working pull.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::restart::wait_for_connection;
use crate::tree::Tree;
use testkit::{ImageSite, Kind, Output, Sandbox, has_fuse, run};

/// The exit code that keeps a service manager from trying again.
const EX_CONFIG: i32 = 78;

fn follow_the_way_back(release: Release, lose: impl Fn(&Path)) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, Kind::Directory);
    let mut node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    // With a local layer, too.
    site.hide([&image.layers[2].digest]);
    site.registry.withhold_nothing();
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    node.containerd.crictl(&["pull", &reference]).ok();
    let container = node.start_sleeping(&reference);
    node.nerdctl(&["exec", &container, "sh", "-c", "echo mine >/written"]).ok();
    let expected = node.tree_of(&reference);

    node.daemon.signal(Signal::SIGTERM);
    node.daemon.process().wait(Duration::from_secs(20)).expect("the daemon ends");
    let root = node.daemon.root();
    lose(&root.join("metadata.redb"));
    let left = Tree::read(&root.join("snapshots"));
    assert_eq!(node.daemon.refuse().code(), Some(EX_CONFIG), "{}", node.daemon.log());
    Tree::read(&root.join("snapshots")).must_be(&left);

    let log = node.daemon.log();
    let told = log.lines().rfind(|line| line.contains("(1) stop kubelet")).expect("the way back");
    let steps: Vec<&str> = told.split('`').skip(1).step_by(2).collect();
    let [away, _namespaces, containers, images, pods, pod_images, delete] = steps[..] else { panic!("{told}") };
    let bin = clients(&sandbox, &node);
    let follow = |step: &str| -> Output {
        let script = format!("set -eu -o pipefail; {step}");
        run("bash", &["-c", &script], &format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"), Duration::from_secs(120))
    };
    follow(away).ok();
    node.daemon.restart();
    wait_for_connection(&node);
    // The reason for all this.
    node.nerdctl(&["run", "--rm", "--network=none", &reference, "true"]).err();
    for step in [containers, images, pods, pod_images] {
        follow(step).ok();
    }

    node.pull(&reference);
    node.tree_of(&reference).must_be(&expected);
    node.containerd.crictl(&["pull", &reference]).ok();
    // What the container has written is where the message says.
    let written = |snapshot: fs::DirEntry| fs::read_to_string(snapshot.path().join("fs/written")).ok();
    let lost = PathBuf::from(format!("{}.lost", root.display()));
    let found = fs::read_dir(lost.join("snapshots")).expect("it is there").flatten().filter_map(written);
    assert_eq!(found.collect::<Vec<_>>(), ["mine\n"]);
    follow(delete).ok();
    assert!(!lost.exists());
}

/// A folder with clients that find this containerd.
fn clients(sandbox: &Sandbox, node: &Node<'_>) -> String {
    let bin = sandbox.mkdir("bin");
    let write = |name: &str, line: String| {
        fs::write(bin.join(name), format!("#!/bin/sh\nexec {line} \"$@\"\n")).expect("a script");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    let nerdctl = node.nerdctl_program();
    write("nerdctl", format!("{} {}", nerdctl.display(), node.containerd.nerdctl_options().join(" ")));
    let endpoint = format!("unix://{}", node.containerd.socket().display());
    let crictl = testkit::programs::tool("crictl", "crictl");
    write("crictl", format!("{} --runtime-endpoint {endpoint} --image-endpoint {endpoint}", crictl.display()));
    bin.to_str().expect("ASCII").to_owned()
}

#[test]
fn the_way_back_after_the_store_was_deleted() {
    follow_the_way_back(Release::Old, |store| fs::remove_file(store).expect("the store"));
}

#[test]
fn the_way_back_after_the_store_was_damaged() {
    follow_the_way_back(Release::New, |store| {
        let file = fs::File::options().write(true).open(store).expect("the store");
        // Whatever begins after the first page.
        file.write_all_at(&[0x5a; 64 * 1024], 4096).expect("written");
    });
}
