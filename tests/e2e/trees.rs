//! The tree of a container is the one that another unpacker makes: names, types, modes, owners, times, targets, content.

use crate::node::{Node, Release};
use crate::tree::Tree;
use testkit::{Entry, Image, ImageSite, Kind, Sandbox, has_fuse};

const MARKERS: &[u8] = include_bytes!("../data/cvmfs-catalog/layer.tar.gz");

/// Every kind of marker, in a layer that a CernVM-FS publisher has ingested, over all that they delete and more.
fn marker_image(name: &str) -> Image {
    let mut below = vec![Entry::file("etc/shadow", "deleted"), Entry::file("etc/shadow-", "kept")];
    let deep = (0..30).map(|n| format!("l{n:02}")).collect::<Vec<_>>().join("/");
    let mut dirs =
        vec!["oldroot", "oldroot/dir", "var", "var/cache", "var/cache/dir", "usr", "usr/share", "usr/share/doc"];
    dirs.extend([
        "usr/share/doc/README",
        "uni",
        "aufs",
        "nested",
        "nested/in",
        "nested/in/gone",
        "nested/alsogone",
        "many",
    ]);
    below.extend(dirs.into_iter().map(|dir| Entry::dir(dir).mode(0o711).owner(9, 10)));
    let mut path = String::from("deep");
    below.push(Entry::dir(&path));
    for name in deep.split('/') {
        path = format!("{path}/{name}");
        below.push(Entry::dir(&path).mode(0o700));
    }
    let files = [
        "oldroot/dir/deleted",
        "var/cache/deleted",
        "var/cache/dir/deleted",
        "usr/share/doc/README/deleted",
        "usr/share/doc/kept",
        "uni/quote'\"x",
        "uni/ümläut file",
        "uni/ümläut kept",
        "aufs/kept",
        "nested/kept",
        "nested/in/kept",
        "nested/in/gone/deleted",
        "nested/alsogone/deleted",
        "many/f000",
        "many/kept",
    ];
    below.extend(files.map(|file| Entry::file(file, "below")));
    below.push(Entry::file(&format!("{path}/bottom"), "deleted"));
    below.push(Entry::file(&format!("{path}/kept"), "below"));
    // So that no two images share layers.
    let image = Image::busybox().below(vec![Entry::file("name", name)]).layer(below).blob(MARKERS);
    // What was deleted comes back. The archive names the directories on the way, as all builders do: where one does not,
    // a published layer cannot tell that it only passes through them.
    let again = ["var", "var/cache", "var/cache/dir"].map(|dir| Entry::dir(dir).mode(0o755).owner(11, 12));
    let files = [Entry::file("var/cache/dir/again", "above"), Entry::file("oldroot", "above")];
    image.layer(again.into_iter().chain(files).collect())
}

fn markers(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    // Which layers are local: none, the top, the one with the markers, those below it, and those below and above.
    for (number, local) in [&[][..], &[4], &[3], &[0, 1, 2], &[0, 2, 4]].into_iter().enumerate() {
        let name = format!("test/markers-{number}:1");
        let written = site.publish(&name, &marker_image(&name));
        assert!(written.layers[3].digest.starts_with("sha256:9105b063ebbe12219ecd82443613db58"));
        site.registry.withhold_nothing();
        site.hide(local.iter().map(|index| &written.layers[*index].digest));
        let reference = site.registry.reference(&name);
        node.pull(&reference);
        site.show(local.iter().map(|index| &written.layers[*index].digest));
        let mut expected = Tree::of_umoci(&site, &name, &sandbox.join(format!("umoci-{number}")));
        if !local.contains(&3) {
            // In the archive, as it was a publisher's: in a repository it is the publisher's own.
            expected = expected.without("nested/.cvmfscatalog");
        }
        assert!(expected.has("many/kept") && !expected.has("var/cache/deleted") && !expected.has("etc/shadow"));
        eprintln!("local layers: {local:?}");
        node.tree_of(&reference).must_be(&expected);
    }
}

#[test]
fn every_kind_of_marker_on_cvmfs() {
    markers(Release::New, Kind::Cvmfs);
}

#[test]
fn every_kind_of_marker_in_a_directory_with_containerd_1_6() {
    markers(Release::Old, Kind::Directory);
}
