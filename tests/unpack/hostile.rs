//! Layers that attack, and blobs that are not what they should be: they are refused, and nothing of them is there.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, TestLayer, simple, tree};
use crate::entries::{archive, checksum, directory, endless_sparse_map, entry, file, hard_link, pax, symlink};

#[test]
fn hostile_entries_refuse_the_layer() {
    need_root!();
    let long = "x/".repeat(3000);
    let huge = vec![b'a'; 2 << 20];
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"9"),
    ];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("its name is absolute", vec![file("/tmp/unpack-evil", "x")]),
        ("its name is absolute", vec![directory("/")]),
        ("contains `..`", vec![file("../evil", "x")]),
        ("contains `..`", vec![file("a/../../evil", "x")]),
        ("contains `..`", vec![directory("..")]),
        ("contains `..`", vec![pax(&[("path", b"a/../../evil")]), file("x", "x")]),
        ("through a symbolic link", vec![symlink("out", "OUTSIDE"), file("out/evil", "x")]),
        ("through a symbolic link", vec![symlink("out", "OUTSIDE"), directory("out/evil/")]),
        ("through a symbolic link", vec![symlink("out", "OUTSIDE"), file("out/evil/deep/f", "x")]),
        ("through a symbolic link", vec![symlink("out", ".."), symlink("out/evil", "x")]),
        ("through a symbolic link", vec![directory("d/"), symlink("in", "d"), file("in/f", "x")]),
        // The parent was open before it was replaced.
        ("through a symbolic link", vec![file("d/f", "x"), symlink("d", "OUTSIDE"), file("d/evil", "x")]),
        ("not a directory", vec![file("f", "x"), file("f/evil", "x")]),
        ("outside of the layer", vec![hard_link("evil", "../../../../secret")]),
        ("outside of the layer", vec![hard_link("evil", "/etc/passwd")]),
        ("behind a symbolic link", vec![symlink("out", "OUTSIDE"), hard_link("evil", "out/secret")]),
        ("something not there", vec![hard_link("evil", "nothing")]),
        ("hard link to a directory", vec![directory("d/"), hard_link("evil", "d")]),
        ("replace the layer's root", vec![symlink("./", "OUTSIDE")]),
        ("replace the layer's root", vec![file(".", "x")]),
        ("owner", vec![pax(&[("uid", b"4294967295")]), file("f", "x")]),
        ("owner", vec![pax(&[("gid", b"99999999999")]), file("f", "x")]),
        ("invalid value", vec![pax(&[("size", b"-5")]), file("f", "x")]),
        ("invalid value", vec![pax(&[("path", b"a\0b")]), file("f", "x")]),
        ("path exceeds limit", vec![pax(&[("path", long.as_bytes())]), file("f", "x")]),
        ("longer than the file system allows", vec![pax(&[("path", &[b'n'; 256])]), file("f", "x")]),
        ("metadata exceeds limit", vec![pax(&[("comment", &huge)]), file("f", "x")]),
        ("metadata exceeds limit", vec![entry(b'L', b"././@LongLink", b"", &huge), file("f", "x")]),
        ("map of a sparse file", vec![pax(&sparse), file("f", &"1".repeat(2000))]),
        ("maps of its sparse files have too many pieces", endless_sparse_map()),
        ("which layers do not have", vec![entry(b'M', b"volume", b"", b"")]),
        (
            "checksum",
            vec![{
                let mut bad = file("f", "x");
                bad[0] ^= 1;
                bad
            }],
        ),
        ("in the middle of a file", vec![file("f", "x").into_iter().take(512).collect()]),
    ];
    for (expected, entries) in cases {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let before = tree(outside.path());
        let mut tar = entries.concat();
        // Symbolic links of the cases lead to a real place.
        let target = outside.path().to_str().unwrap().as_bytes();
        for at in (0..tar.len()).step_by(512) {
            if tar.get(at + 157..at + 164) == Some(b"OUTSIDE") {
                tar[at + 157..at + 157 + target.len()].copy_from_slice(target);
                checksum(&mut tar[at..at + 512]);
            }
        }
        if expected != "in the middle of a file" {
            tar.resize(tar.len() + 1024, 0);
        }
        let layer = TestLayer::gzip(&tar);
        let bench = Bench::new(std::slice::from_ref(&layer));
        let message = bench.refuse(&[]);
        assert!(message.contains(expected), "expected {expected:?}: {message}");
        assert!(message.contains(&layer.digest), "{message}");
        bench.assert_nothing_appeared();
        assert_eq!(tree(outside.path()), before, "{expected}");
        assert!(!Path::new("/tmp/unpack-evil").exists());
    }
}

#[test]
fn lies_are_found() {
    need_root!();
    let honest = simple();
    let other = TestLayer::gzip(&archive(&[file("x", "x")]));
    let lying_digest = TestLayer { digest: "ab".repeat(32), ..honest.clone() };
    let lying_diff_id = TestLayer { diff_id: other.diff_id.clone(), ..honest.clone() };
    let damaged = TestLayer { blob: vec![0x1f; honest.blob.len()], ..honest.clone() };
    for (layer, expected) in [
        (lying_digest, vec!["ab".repeat(32), honest.digest.clone()]),
        (lying_diff_id, vec![honest.diff_id.clone(), other.diff_id.clone()]),
        (damaged, vec![honest.digest.clone(), "the blob is damaged".to_owned()]),
    ] {
        let bench = Bench::new(&[layer]);
        let message = bench.refuse(&[]);
        for part in expected {
            assert!(message.contains(&part), "{message}");
        }
        bench.assert_nothing_appeared();
    }
    // A shorter blob than the manifest says; and a published layer that another image pairs with another diff ID.
    let bench = Bench::new(std::slice::from_ref(&honest));
    fs::write(bench.image().join("blobs/sha256").join(&honest.digest), &honest.blob[1..]).unwrap();
    assert!(bench.refuse(&[]).contains("bytes and should have"));
    bench.assert_nothing_appeared();
    let bench = Bench::new(std::slice::from_ref(&honest));
    bench.unpack();
    let forged = TestLayer { diff_id: other.diff_id, ..honest };
    bench.write_index(&[bench.add_image(&[forged], "linux", "amd64")]);
    assert!(bench.refuse(&[]).contains("damaged or forged"));
}
