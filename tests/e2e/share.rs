//! Layers and images used more than once: in other places, in other namespaces, at once, and again after a removal.

use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::tree::Tree;
use std::time::Duration;
use testkit::inside::prints;
use testkit::{Entry, Image, ImageSite, Kind, Sandbox, has_fuse, wait_until};

/// A layer that replaces the directory `name` and deletes the file `deleted-NAME`.
fn part(name: &str) -> Vec<Entry> {
    let (dir, file) = (format!("parts/{name}"), format!("parts/{name}/file"));
    let mut layer = vec![Entry::dir("parts").mtime(1_500_000_000 + name.len() as u64), Entry::dir(&dir)];
    layer.extend([Entry::opaque(&dir), Entry::file(&file, name), Entry::whiteout(&format!("parts/deleted-{name}"))]);
    layer.push(Entry::file("parts/last", name));
    layer
}

fn other_positions(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    let base = vec![
        Entry::dir("parts"),
        Entry::file("parts/deleted-a", "base"),
        Entry::file("parts/deleted-bb", "base"),
        Entry::dir("parts/a"),
        Entry::file("parts/a/deleted", "base"),
    ];
    let busybox = Image::busybox().layer(base.clone());
    let below = |entries| Image::busybox().below(entries);
    let images = [
        ("test/one:1", busybox.clone().layer(part("a")).layer(part("bb"))),
        ("test/two:1", busybox.clone().layer(part("bb")).layer(part("a"))),
        // At the bottom, twice, and above its own copy.
        ("test/three:1", below(part("a")).layer(base.clone()).layer(part("a")).layer(part("bb")).layer(part("a"))),
        ("test/four:1", busybox.layer(part("a")).layer(base)),
    ];
    for (name, image) in &images {
        let written = site.publish(name, image);
        let reference = site.registry.reference(name);
        node.pull(&reference);
        assert_eq!(site.asked_for(&written), [0; 0], "{name}");
    }
    for (number, (name, _)) in images.iter().enumerate() {
        let expected = Tree::of_umoci(&site, name, &sandbox.join(format!("umoci-{number}")));
        node.tree_of(&site.registry.reference(name)).must_be(&expected);
    }
}

#[test]
fn shared_layers_at_other_positions_on_cvmfs() {
    other_positions(Release::New, Kind::Cvmfs);
}

#[test]
fn shared_layers_at_other_positions_with_containerd_1_6() {
    other_positions(Release::Old, Kind::Directory);
}

/// The same image in two namespaces; `local`: which of its layers are not in the repository.
fn two_namespaces(release: Release, local: &[usize]) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, Kind::Cvmfs);
    let node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    site.hide(local.iter().map(|index| &image.layers[*index].digest));
    if !local.is_empty() {
        site.registry.withhold_nothing();
    }
    let reference = site.registry.reference("test/box:1");
    let expected = Tree::of_umoci(&site, "test/box:1", &sandbox.join("umoci"));

    node.pull(&reference);
    let first = node.start_sleeping(&reference);
    let other = format!("{}-b", node.containerd.namespace());
    let in_other = |args: &[&str]| node.nerdctl(&[&["--namespace", &other][..], args].concat()).ok();
    in_other(&["pull", "--quiet", &reference]);
    if local.is_empty() {
        assert_eq!(site.asked_for(&image), [0; 0]);
    }
    // In the cgroup of this test, which is what the sandbox looks for.
    let cgroup = format!("--cgroup-parent=/{}", node.containerd.namespace());
    let second = in_other(&["run", "-d", "--network=none", &cgroup, &reference, "sleep", "10000"]);
    Tree::read(&node.rootfs_in(&other, second.trim())).must_be(&expected);
    Tree::read(&node.rootfs(&first)).must_be(&expected);

    // What one namespace drops the other keeps.
    node.remove(&first);
    node.nerdctl(&["rmi", "-f", &reference]).ok();
    let third = ["run", "--rm", "--network=none", &cgroup, &reference];
    in_other(&[&third[..], &prints("above", &["cat", "/data/opaque/new"])].concat());
    in_other(&["rm", "-f", second.trim()]);
    node.pull(&reference);
    node.tree_of(&reference).must_be(&expected);
}

#[test]
fn two_namespaces_share_an_image_in_place() {
    two_namespaces(Release::New, &[]);
}

#[test]
fn two_namespaces_share_an_image_in_place_with_containerd_1_6() {
    two_namespaces(Release::Old, &[]);
}

/// The remote layers of each namespace stand on another local snapshot.
#[test]
fn two_namespaces_with_a_local_bottom_layer() {
    two_namespaces(Release::New, &[0]);
}

#[test]
fn two_namespaces_with_a_local_bottom_layer_with_containerd_1_6() {
    two_namespaces(Release::Old, &[0]);
}

fn removed_and_pulled_again(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    let expected = Tree::of_umoci(&site, "test/box:1", &sandbox.join("umoci"));
    for local in [None, Some(1), None] {
        let hidden = local.map(|index: usize| &image.layers[index].digest);
        site.hide(hidden);
        if local.is_some() {
            site.registry.withhold_nothing();
        }
        node.pull(&reference);
        node.tree_of(&reference).must_be(&expected);
        if local.is_none() {
            assert_eq!(site.asked_for(&image), [0; 0]);
        }
        node.nerdctl(&["rmi", "-f", &reference]).ok();
        // A view that nerdctl makes for a run is held by a lease of its own, which `run` leaves to expire.
        let leases = node.containerd.ctr(&["leases", "ls", "-q"]).ok();
        for lease in leases.split_whitespace() {
            node.containerd.ctr(&["leases", "rm", "--sync", lease]).ok();
        }
        // Garbage collection runs some time after.
        let empty = wait_until(Duration::from_secs(20), || node.snapshots() == 0);
        assert!(empty, "{}", node.containerd.ctr(&["snapshots", "--snapshotter", "cvmfs-snapshotter", "ls"]).ok());
        site.show(hidden);
        site.registry.withhold_layers().expect("the layers of the layout");
        site.registry.forget();
    }
}

#[test]
fn removed_collected_and_pulled_again_on_cvmfs() {
    removed_and_pulled_again(Release::New, Kind::Cvmfs);
}

#[test]
fn removed_collected_and_pulled_again_with_containerd_1_6() {
    removed_and_pulled_again(Release::Old, Kind::Directory);
}

fn at_once(release: Release) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, Kind::Cvmfs);
    let node = Node::start(&sandbox, release, &site);
    let names = ["a", "bb", "ccc"].map(|name| {
        let image = busy_image().layer(part(name));
        let tag = format!("test/{}:1", name.len());
        let written = site.publish(&tag, &image);
        (tag, written)
    });
    let other = format!("{}-b", node.containerd.namespace());
    std::thread::scope(|scope| {
        for (tag, _) in &names {
            let reference = site.registry.reference(tag);
            for namespace in [node.containerd.namespace(), node.containerd.namespace(), other.clone()] {
                let (node, reference) = (&node, reference.clone());
                scope.spawn(move || {
                    node.nerdctl(&["--namespace", &namespace, "pull", "--quiet", &reference]).ok();
                });
            }
        }
    });
    for (number, (tag, written)) in names.iter().enumerate() {
        assert_eq!(site.asked_for(written), [0; 0], "{tag}");
        let expected = Tree::of_umoci(&site, tag, &sandbox.join(format!("umoci-{number}")));
        node.tree_of(&site.registry.reference(tag)).must_be(&expected);
    }
    // Each layer once, whoever asked for it first: the five of the image, and one of each.
    let committed = node.containerd.ctr(&["snapshots", "--snapshotter", "cvmfs-snapshotter", "ls"]).ok();
    assert_eq!(committed.matches("Committed").count(), 5 + 3, "{committed}");
}

#[test]
fn pulls_at_once() {
    at_once(Release::New);
}

#[test]
fn pulls_at_once_with_containerd_1_6() {
    at_once(Release::Old);
}
