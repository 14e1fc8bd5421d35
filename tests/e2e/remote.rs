//! Which layers are downloaded, and that a container is right whichever they are.

use crate::node::{Node, Release, mounts_naming};
use crate::tree::Tree;
use testkit::inside::lists;
use testkit::{Entry, Image, ImageSite, Kind, Sandbox, has_fuse};

/// Layers that hide and replace something of each other; the empty one twice.
pub(crate) fn busy_image() -> Image {
    let below = vec![
        Entry::dir("data"),
        Entry::file("data/deleted", "below"),
        Entry::file("data/kept", "below").owner(1000, 1000).mode(0o640),
        Entry::file("data/set-id", "below").owner(3, 4).mode(0o6755),
        Entry::dir("data/opaque").mtime(1_500_000_000),
        Entry::file("data/opaque/deleted", "below"),
        Entry::dir("data/gone"),
        Entry::file("data/gone/deleted", "below"),
        Entry::dir("data/becomes-file"),
        Entry::file("data/becomes-file/deleted", "below"),
        Entry::file("data/becomes-dir", "below"),
    ];
    let above = vec![
        Entry::dir("data").owner(5, 6).mode(0o1777).mtime(1_400_000_000),
        Entry::whiteout("data/deleted"),
        Entry::whiteout("data/gone"),
        Entry::dir("data/opaque").owner(7, 8).mode(0o2750),
        Entry::opaque("data/opaque"),
        Entry::file("data/opaque/new", "above"),
        Entry::symlink("data/link", "kept"),
        Entry::file("data/becomes-file", "above"),
        Entry::dir("data/becomes-dir"),
        Entry::fifo("data/becomes-dir/fifo"),
        Entry::char_device("data/null", 1, 3),
    ];
    Image::busybox().layer(below).layer(vec![]).layer(above).layer(vec![])
}

/// Pulls and runs, with every layer in the repository and none in the registry.
fn all_in_place(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let image = site.publish("test/box:1", &busy_image());
    let node = Node::start(&sandbox, release, &site);
    let reference = site.registry.reference("test/box:1");

    node.pull(&reference);
    let hidden = "deleted|gone|[.]wh[.]|[.]cvmfs";
    node.run(&reference, &lists("/data/opaque/new", hidden, &["find", "/", "-xdev"]));

    let container = node.start_sleeping(&reference);
    let expected = Tree::of_umoci(&site, "test/box:1", &sandbox.join("umoci"));
    Tree::read(&node.rootfs(&container)).must_be(&expected);
    assert_eq!(site.asked_for(&image), [0; 0], "{:?}", site.registry.accesses());
    let sizes = node.nerdctl(&["images", "--format", "{{.Repository}} {{.Size}}"]).ok();
    let size = sizes.lines().find(|line| line.contains("test/box ")).expect("the image is listed");
    assert!(size.ends_with(" 0B") || size.ends_with(" 0.0 B"), "{sizes}");
    // The only mounts are those of containers, and they go through the links of the snapshots.
    assert_eq!(mounts_naming(site.path()), [""; 0]);
}

#[test]
fn all_in_place_on_cvmfs() {
    all_in_place(Release::New, Kind::Cvmfs);
}

#[test]
fn all_in_place_on_cvmfs_with_containerd_1_6() {
    all_in_place(Release::Old, Kind::Cvmfs);
}

#[test]
fn all_in_place_in_a_directory() {
    all_in_place(Release::New, Kind::Directory);
}

#[test]
fn all_in_place_in_a_directory_with_containerd_1_6() {
    all_in_place(Release::Old, Kind::Directory);
}

/// Pulls and runs an image of four layers some of which are not in the repository.
fn partly_in_place(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    // All first, as containerd then keeps the blob of busybox; the other layers are of one image only.
    for (name, missing) in [("all", &[0, 1, 2, 3][..]), ("top", &[3]), ("middle", &[2]), ("bottom", &[0])] {
        let image = Image::busybox()
            .below(vec![Entry::dir("data"), Entry::file("data/bottom", name), Entry::file("data/deleted", name)])
            .layer(vec![
                Entry::dir("data"),
                Entry::dir("data/dir"),
                Entry::file("data/dir/deleted", name),
                Entry::file("data/kept", name),
            ])
            .layer(vec![
                Entry::dir("data"),
                Entry::whiteout("data/deleted"),
                Entry::dir("data/dir"),
                Entry::opaque("data/dir"),
                Entry::file("data/dir/top", name),
            ]);
        let tag = format!("test/{name}:1");
        let written = site.publish(&tag, &image);
        let hidden = missing.iter().map(|index| &written.layers[*index].digest).collect::<Vec<_>>();
        site.hide(hidden.iter().copied());
        // From the first layer that is missing on containerd asks for all blobs, whether it needs them or not.
        site.registry.withhold_nothing();
        for layer in &written.layers[..missing[0]] {
            site.registry.withhold(&layer.digest);
        }
        site.registry.forget();

        let reference = site.registry.reference(&tag);
        node.pull(&reference);
        let asked = site.asked_for(&written);
        assert!(missing.iter().all(|index| asked.contains(index)), "{name}: {asked:?}");
        assert!(asked.iter().all(|index| *index >= missing[0]), "{name}: {asked:?}");
        let log = node.daemon.log();
        for layer in &hidden {
            let said = |line: &&str| line.contains("layer is downloaded") && line.contains(layer.as_str());
            let line = log.lines().find(said).unwrap_or_else(|| panic!("no word about {layer}"));
            assert!(line.contains(&reference) && line.contains("does not have it"), "{line}");
        }
        let umoci = sandbox.join(format!("umoci-{name}"));
        node.tree_of(&reference).must_be(&Tree::of_umoci(&site, &tag, &umoci));
        site.show(hidden);
    }
}

#[test]
fn partly_in_place_on_cvmfs() {
    partly_in_place(Release::New, Kind::Cvmfs);
}

#[test]
fn partly_in_place_in_a_directory_with_containerd_1_6() {
    partly_in_place(Release::Old, Kind::Directory);
}
