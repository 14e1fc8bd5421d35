//! Two images that claim the same diff IDs with different layers: neither changes the other.

use crate::node::{Node, Release};
use crate::tree::Tree;
use testkit::image::forge;
use testkit::inside::prints;
use testkit::{Entry, Image, ImageSite, Kind, Sandbox, has_fuse};

fn forged(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let node = Node::start(&sandbox, release, &site);
    let image = |who: &str| Image::busybox().layer(vec![Entry::file("who", who), Entry::dir("data")]);
    let honest = site.publish("test/honest:1", &image("honest"));
    let other = site.publish("test/other:1", &image("other"));
    assert_eq!(honest.layers[0].chain_id, other.layers[0].chain_id);
    // Every layer of it is in the repository, but not with the diff ID that its configuration claims.
    forge(site.layout(), "test/forged:1", &honest, &other);
    site.registry.withhold_nothing();
    let [honest, other, forged] =
        ["honest", "other", "forged"].map(|name| site.registry.reference(&format!("test/{name}:1")));

    // First the liar, then the honest, then the liar again.
    let refused = node.nerdctl(&["pull", "--quiet", &forged]).err();
    assert!(refused.contains("wrong diff id"), "{refused}");
    assert!(node.daemon.log().contains("which is not the one that the image names"));
    node.pull(&honest);
    node.run(&honest, &prints("honest", &["cat", "/who"]));
    node.nerdctl(&["rmi", "-f", &honest]).ok();
    node.pull(&other);
    node.pull(&honest);
    // Now the chain that the liar claims is there, so nothing of its own layers is used.
    let again = node.nerdctl(&["pull", "--quiet", &forged]);
    if again.status.success() {
        node.run(&forged, &prints("honest", &["cat", "/who"]));
    }
    for (reference, who) in [(&honest, "honest"), (&other, "other")] {
        let name = format!("test/{who}:1");
        let expected = Tree::of_umoci(&site, &name, &sandbox.join(format!("umoci-{who}")));
        node.tree_of(reference).must_be(&expected);
        node.run(reference, &prints(who, &["cat", "/who"]));
    }
}

#[test]
fn an_image_that_claims_the_layers_of_another_on_cvmfs() {
    forged(Release::New, Kind::Cvmfs);
}

#[test]
fn an_image_that_claims_the_layers_of_another_with_containerd_1_6() {
    forged(Release::Old, Kind::Directory);
}
