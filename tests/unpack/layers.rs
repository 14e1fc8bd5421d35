//! What a layer becomes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bench::{Bench, TestLayer, gzip, list, simple};
use crate::entries::{archive, directory, entry, file, hard_link, pax, symlink};

#[test]
fn the_umask_and_the_directory_it_is_in_change_nothing() {
    need_root!();
    let tar = archive(&[directory("d/"), file("d/f", "x"), file("missing/parent/f", "y")]);
    let layer = TestLayer::gzip(&tar);
    let bench = Bench::new(std::slice::from_ref(&layer));
    let repository = bench.path("repository");
    fs::create_dir(&repository).unwrap();
    let script = "chown 12:34 . && chmod 2770 . && umask 077 && exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_cvmfs-snapshotter"), "unpack"]);
    assert!(command.arg(bench.image()).arg(".").current_dir(&repository).status().unwrap().success());
    let place = bench.layer_directory(&layer.digest);
    let shown = |path: PathBuf| {
        let meta = path.metadata().unwrap();
        format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    for directory in ["..", "../..", ".", ".metadata", "layerfs", "layerfs/d", "layerfs/missing/parent"] {
        assert_eq!(shown(place.join(directory)), "755 0:0", "{directory}");
    }
    assert_eq!(shown(place.join("layerfs/d/f")), "644 0:0");
    assert_eq!(shown(place.join(".metadata/layers.json")), "644 0:0");
}

#[test]
fn metadata_is_what_ducc_writes() {
    need_root!();
    let layer = simple();
    let bench = Bench::new(std::slice::from_ref(&layer));
    assert!(bench.unpack().starts_with("1 layers: 1 new ("));
    let place = bench.layer_directory(&layer.digest);
    assert_eq!(list(&place), [".metadata", "layerfs"]);
    let json: Value = serde_json::from_slice(&fs::read(place.join(".metadata/layers.json")).unwrap()).unwrap();
    assert_eq!(json[0]["id"], layer.diff_id);
    assert_eq!(json[0]["compressed-diff-digest"], format!("sha256:{}", layer.digest));
    assert_eq!(json[0]["diff-digest"], format!("sha256:{}", layer.diff_id));
    assert_eq!(json[0]["diff-size"], 4 * 512 + 1024);
    assert_eq!(json[0]["created"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
    assert_eq!(bench.staging(), [""; 0]);
}

#[test]
fn every_compression_is_read_whatever_the_media_type_says() {
    need_root!();
    let mut tar = archive(&[file("a", &"a".repeat(100_000)), file("b", "b")]);
    // Padding after the end belongs to the diff ID.
    tar.resize(tar.len() + 5000, 0);
    let members = [gzip(&tar[..70_000]), gzip(&tar[70_000..])].concat();
    let frames = [zstd::encode_all(&tar[..512], 3).unwrap(), zstd::encode_all(&tar[512..], 3).unwrap()].concat();
    let layers = [tar.clone(), gzip(&tar), members, frames].map(|blob| TestLayer::new(&tar, blob));
    let bench = Bench::new(&layers);
    bench.unpack();
    for layer in &layers {
        assert_eq!(fs::read(bench.layerfs(layer).join("a")).unwrap().len(), 100_000);
        assert_eq!(fs::read(bench.layerfs(layer).join("b")).unwrap(), b"b");
    }
}

#[test]
fn the_sample_layer_has_exactly_its_markers() {
    need_root!();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cvmfs-catalog");
    let blob = fs::read(data.join("layer.tar.gz")).unwrap();
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&blob[..]), &mut tar).unwrap();
    let layer = TestLayer::new(&tar, blob);
    assert_eq!(layer.digest, "9105b063ebbe12219ecd82443613db5811f59b44b719703b453fe898bfd1c821");
    let bench = Bench::new(std::slice::from_ref(&layer));
    bench.unpack();
    let list = fs::read_to_string(data.join("markers.txt")).unwrap();
    // The publisher makes the one in the root; that in `nested` is in the blob.
    let expected: Vec<&str> = list.lines().filter(|line| *line != ".cvmfscatalog").collect();
    let root = bench.layerfs(&layer);
    let mut found: Vec<String> = walkdir::WalkDir::new(&root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| {
            let name = e.file_name().to_string_lossy();
            name.starts_with(".wh.") || name.starts_with(".cvmfs")
        })
        .inspect(|e| assert!(e.file_type().is_file() && e.metadata().unwrap().len() == 0))
        .map(|e| e.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn directories_that_the_archive_leaves_out_are_recorded() {
    need_root!();
    let complete =
        TestLayer::gzip(&archive(&[directory("a/"), directory("a/b/"), file("a/b/f", "x"), file("top", "x")]));
    // Listed late is listed all the same.
    let late = TestLayer::gzip(&archive(&[file("a/b/f", "x"), directory("a/"), directory("a/b/")]));
    let partly = TestLayer::gzip(&archive(&[directory("a/"), file("a/b/c/f", "x"), file("d/.wh.x", "")]));
    let bench = Bench::new(&[complete.clone(), late.clone(), partly.clone()]);
    let output = bench.run(&[]);
    let warning = String::from_utf8(output.stderr).unwrap();
    let record = |layer| fs::read(bench.layerfs(layer).with_file_name(".metadata").join("unlisted-directories")).ok();
    assert_eq!((record(&complete), record(&late)), (None, None));
    assert_eq!(record(&partly).as_deref(), Some(&b"a/b\0a/b/c\0d\0"[..]));
    assert!(warning.contains(&partly.digest) && warning.contains("3 directories"), "{warning}");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    need_root!();
    let tar = archive(&[
        file("f", "old"),
        file("f", "new"),
        directory("tree/"),
        directory("tree/below/"),
        file("tree/below/f", "x"),
        file("tree", "a file now"),
        directory("kept/"),
        file("kept/f", "kept"),
        entry(b'5', b"./kept", b"", b""),
        symlink("link", "kept"),
        directory("link/"),
        file("link/f", "in a directory now"),
        file("h", "h"),
        file("h2", "not h"),
        hard_link("h2", "./h"),
        hard_link("h", "h"),
        file("again", "x"),
        directory("again/"),
        file("again/f", "y"),
    ]);
    let layer = TestLayer::gzip(&tar);
    let bench = Bench::new(std::slice::from_ref(&layer));
    bench.unpack();
    let read = |name: &str| fs::read_to_string(bench.layerfs(&layer).join(name)).unwrap();
    assert_eq!(read("f"), "new");
    assert_eq!(read("tree"), "a file now");
    assert_eq!(read("kept/f"), "kept");
    assert!(!bench.layerfs(&layer).join("link").is_symlink());
    assert_eq!(list(&bench.layerfs(&layer).join("kept")), ["f"]);
    assert_eq!(read("link/f"), "in a directory now");
    assert_eq!(read("h2"), "h");
    assert_eq!(read("again/f"), "y");
}

#[test]
fn links_have_no_content_and_empty_records_say_nothing() {
    need_root!();
    // A size in the header of a link, but no content behind it: so Go writes and reads it.
    let mut link = hard_link("b", "a");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&link[..512]);
    header.set_size(5);
    header.set_cksum();
    link[..512].copy_from_slice(header.as_bytes());
    let tar = archive(&[
        file("a", "hello"),
        link,
        pax(&[("uid", b""), ("mtime", b"")]),
        file("c", "c"),
        pax(&[("size", b"3"), ("path", b"renamed"), ("mtime", b"-1.5"), ("uid", b"4000000000")]),
        file("d", "ddd"),
    ]);
    let layer = TestLayer::gzip(&tar);
    let bench = Bench::new(std::slice::from_ref(&layer));
    bench.unpack();
    let root = bench.layerfs(&layer);
    assert_eq!(list(&root), ["a", "b", "c", "renamed"]);
    let meta = root.join("renamed").metadata().unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.uid()), (-2, 500_000_000, 4_000_000_000));
}
