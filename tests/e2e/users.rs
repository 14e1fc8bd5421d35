//! What clients do in a container's tree: look users up, copy in and out, list changes, commit.

use std::fs;

use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::tree::Tree;
use testkit::inside::{lists, prints};
use testkit::{Entry, Image, ImageSite, Kind, Sandbox, has_fuse};

/// An image whose lowest layer has the user "ghost", beside what `above` does to `/etc`.
fn with_ghost(above: Vec<Entry>) -> Image {
    let ghost = "root:x:0:0:root:/:/bin/sh\nghost:x:4242:4242::/:/bin/sh\n";
    let layer = vec![
        Entry::dir("etc"),
        Entry::file("etc/passwd", ghost),
        Entry::file("etc/group", "root:x:0:\nghost:x:4242:\n"),
    ];
    Image::busybox().layer(layer).layer(above)
}

fn look_up(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    let mounted_on = || ["etc/hostname", "etc/hosts", "etc/resolv.conf"].map(|path| Entry::file(path, ""));
    let opaque = |more: Vec<Entry>| {
        let mut layer = vec![Entry::dir("etc"), Entry::opaque("etc")];
        layer.extend(mounted_on());
        layer.extend(more);
        layer
    };
    let user = Entry::file("etc/passwd", "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    let cases = [
        ("visible", vec![Entry::dir("data")], true),
        ("opaque", opaque(vec![]), false),
        ("opaque-with-another", opaque(vec![user.clone()]), false),
        ("deleted", vec![Entry::dir("etc"), Entry::whiteout("etc/passwd")], false),
        ("deleted-dir", vec![Entry::whiteout("etc")], false),
        ("replaced", vec![Entry::dir("etc"), user], false),
    ];
    for (name, above, found) in cases {
        let tag = format!("test/{name}:1");
        site.publish(&tag, &with_ghost(above));
        let reference = site.registry.reference(&tag);
        node.pull(&reference);
        let run = |user: &str, id: &str| {
            let is_it = format!("grep Uid /proc/self/status | grep -w {id}");
            node.nerdctl(&["run", "--rm", "--network=none", "--user", user, &reference, "sh", "-c", &is_it])
        };
        let output = run("ghost", "4242");
        if found {
            output.ok();
        } else {
            let why = output.err();
            let reasons = ["no users found", "no such file", "file does not exist"];
            assert!(reasons.iter().any(|reason| why.contains(reason)), "{name}: {why}");
        }
        if name == "opaque-with-another" {
            run("user", "1000").ok();
        }
    }
}

#[test]
fn users_are_those_of_the_image_on_cvmfs() {
    look_up(Release::New, Kind::Cvmfs);
}

#[test]
fn users_are_those_of_the_image_with_containerd_1_6() {
    look_up(Release::Old, Kind::Directory);
}

fn client_work(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    let container = node.start_sleeping(&reference);
    let change = "rm -r /data/opaque && mkdir /data/opaque && echo mine >/data/opaque/mine && rm /data/kept && \
                  echo more >>/data/becomes-file";
    node.nerdctl(&["exec", &container, "sh", "-c", change]).ok();

    // Copies, both ways, while it runs.
    let file = |name: &str| sandbox.join(name).to_string_lossy().into_owned();
    fs::write(file("in"), "copied").expect("a file");
    node.nerdctl(&["cp", &file("in"), &format!("{container}:/data/copied")]).ok();
    node.nerdctl(&["cp", &format!("{container}:/data/opaque/mine"), &file("out")]).ok();
    assert_eq!(fs::read_to_string(file("out")).expect("the copy"), "mine\n");
    node.exec(&container, &prints("copied", &["cat", "/data/copied"]));
    node.nerdctl(&["cp", &format!("{container}:/bin/busybox"), &file("busybox")]).ok();
    assert_eq!(fs::read(file("busybox")).ok(), fs::read("/bin/busybox").ok());

    let diff = node.nerdctl(&["diff", &container]);
    if diff.status.success() {
        let lines = diff.stdout.lines().collect::<Vec<_>>();
        for line in
            ["D /data/kept", "C /data/becomes-file", "A /data/copied", "A /data/opaque/mine", "D /data/opaque/new"]
        {
            assert!(lines.contains(&line), "{line}: {lines:?}");
        }
        assert!(!diff.stdout.contains("deleted") && !diff.stdout.contains(".wh."), "{lines:?}");
    } else {
        assert_eq!(release, Release::Old, "{diff}");
        assert!(diff.stderr.contains("unknown subcommand"), "{diff}");
    }

    // Committed: a local layer on top of layers in place. nerdctl wants all blobs for this, and only warns.
    let before = Tree::read(&node.rootfs(&container));
    site.registry.withhold_nothing();
    node.nerdctl(&["commit", &container, "test/committed:1"]).ok();
    site.registry.withhold_layers().expect("the layers of the layout");
    let data = ["sh", "-c", "cat /data/opaque/* /data/becomes-file"];
    node.run("test/committed:1", &prints("mine\nabovemore", &data));
    node.run("test/committed:1", &lists("opaque", "^kept$|deleted|[.]wh[.]", &["ls", "-a", "/data"]));
    let committed = node.start_sleeping("test/committed:1");
    let after = Tree::read(&node.rootfs(&committed));
    // The archive of a commit has whole seconds.
    after.must_be(&before.in_seconds());
    assert!(!after.has("data/kept") && after.has("data/opaque/mine") && !after.has("data/opaque/new"));

    // Copies, both ways, while it is stopped.
    node.nerdctl(&["stop", "--time=1", &container]).ok();
    node.nerdctl(&["cp", &format!("{container}:/data/becomes-file"), &file("stopped")]).ok();
    assert_eq!(fs::read_to_string(file("stopped")).expect("the copy"), "abovemore\n");
    fs::write(file("in"), "copied again").expect("a file");
    node.nerdctl(&["cp", &file("in"), &format!("{container}:/data/copied")]).ok();
    node.nerdctl(&["start", &container]).ok();
    node.exec(&container, &prints("copied again", &["cat", "/data/copied"]));
}

#[test]
fn copy_compare_and_commit_on_cvmfs() {
    client_work(Release::New, Kind::Cvmfs);
}

#[test]
fn copy_compare_and_commit_with_containerd_1_6() {
    client_work(Release::Old, Kind::Directory);
}
