//! A real image: Debian with a Python program that imports a compiled module.

use std::path::Path;
use std::process::Command;

use crate::node::{Node, Release};
use crate::tree::Tree;
use testkit::{ImageSite, Kind, Sandbox, has_fuse};

const NAME: &str = "test/debian:1";

#[test]
fn a_python_program_on_debian() {
    if !has_fuse() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/debian-image");
    let output = Command::new(&script).output().expect("tools/debian-image");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let layout = String::from_utf8_lossy(&output.stdout).trim().to_owned();

    let sandbox = Sandbox::new();
    let site = ImageSite::of(&sandbox, Kind::Cvmfs, Path::new(&layout), NAME);
    let node = Node::start(&sandbox, Release::New, &site);
    let reference = site.registry.reference(NAME);
    node.pull(&reference);
    // Inside, as a client may lose what a container prints.
    let solved = r#"found=$(python3 /app/main.py) && printf '%s' "$found" | grep -x 'numpy .* solved \[0.8, 1.4\]'"#;
    node.run(&reference, &["sh", "-c", solved]);
    // Manifest and configuration, and nothing else.
    assert!(site.registry.accesses().iter().all(|access| access.status == 200), "{:?}", site.registry.accesses());

    let expected = Tree::of_umoci(&site, NAME, &sandbox.join("umoci"));
    assert!(
        expected.has("usr/share/doc/README")
            && !expected.has("usr/share/doc/python3")
            && !expected.has("usr/share/man")
    );
    node.tree_of(&reference).must_be(&expected);
}
