//! The command `unpack`, run as the real program: what it makes, what it refuses, and what it leaves behind.

mod skip;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Returns from a test that needs root.
macro_rules! need_root {
    () => {
        if !skip::is_root() {
            return;
        }
    };
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A layer of an image in the making: a blob and what the image says about it.
#[derive(Clone)]
struct TestLayer {
    blob: Vec<u8>,
    digest: String,
    diff_id: String,
    media_type: &'static str,
}

impl TestLayer {
    fn new(tar: &[u8], blob: Vec<u8>) -> Self {
        let digest = sha256(&blob);
        Self { blob, digest, diff_id: sha256(tar), media_type: "application/vnd.oci.image.layer.v1.tar+gzip" }
    }

    fn gzip(tar: &[u8]) -> Self {
        Self::new(tar, gzip(tar))
    }

    fn plain(tar: &[u8]) -> Self {
        Self::new(tar, tar.to_vec())
    }
}

/// A place for an image and a repository, removed at the end.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new(layers: &[TestLayer]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        let image = bench.image();
        fs::create_dir_all(image.join("blobs/sha256")).unwrap();
        fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let manifest = bench.add_image(layers, "linux", "amd64");
        bench.write_index(&[manifest]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("image")
    }

    fn blob(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        fs::write(self.image().join("blobs/sha256").join(&digest), content).unwrap();
        digest
    }

    /// Writes an image's blobs and returns its descriptor.
    fn add_image(&self, layers: &[TestLayer], os: &str, architecture: &str) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", l.diff_id)).collect();
        let config = json!({
            "os": os, "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        let config = config.to_string();
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                fs::write(self.image().join("blobs/sha256").join(&layer.digest), &layer.blob).unwrap();
                json!({
                    "mediaType": layer.media_type,
                    "digest": format!("sha256:{}", layer.digest),
                    "size": layer.blob.len(),
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", self.blob(config.as_bytes())),
                "size": config.len(),
            },
            "layers": descriptors,
        })
        .to_string();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", self.blob(manifest.as_bytes())),
            "size": manifest.len(),
            "platform": { "os": os, "architecture": architecture },
        })
    }

    fn write_index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.image().join("index.json"), index.to_string()).unwrap();
    }

    fn command(&self, image: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvmfs-snapshotter"));
        command.arg("unpack").arg(image).arg(self.path("repository"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.image()).args(arguments).output().unwrap()
    }

    /// Runs and expects success; returns what it printed.
    fn unpack(&self) -> String {
        let output = self.run(&[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and expects failure; returns the message.
    fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    fn layer_directory(&self, digest: &str) -> PathBuf {
        self.path("repository/.layers").join(&digest[..2]).join(digest)
    }

    fn layerfs(&self, layer: &TestLayer) -> PathBuf {
        self.layer_directory(&layer.digest).join("layerfs")
    }

    fn staging(&self) -> Vec<String> {
        list(&self.path("repository/.layers/.tmp"))
    }

    /// Nothing of any layer is there, and nothing is left in staging.
    fn assert_nothing_appeared(&self) {
        let shown: Vec<String> = list(&self.path("repository/.layers"));
        assert_eq!(shown, [".tmp"]);
        assert_eq!(self.staging(), [""; 0]);
    }
}

fn list(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything that can be known about what lies below a directory.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut known = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let name = entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = if meta.is_file() {
            sha256(&fs::read(entry.path()).unwrap())
        } else if meta.is_symlink() {
            fs::read_link(entry.path()).unwrap().into_os_string().into_vec().escape_ascii().to_string()
        } else {
            String::new()
        };
        let mut xattrs: Vec<String> = xattr::list(entry.path())
            .unwrap()
            .map(|name| {
                let value = xattr::get(entry.path(), &name).unwrap().unwrap();
                format!("{}={}", name.to_string_lossy(), value.escape_ascii())
            })
            .collect();
        xattrs.sort();
        // The first name of an inode stands for it, so that hard links are compared too.
        let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).escape_ascii().to_string();
        let size = if meta.is_dir() { 0 } else { meta.size() };
        known.insert(
            name,
            format!(
                "{:o} {}:{} {}.{:09} rdev {} size {size} {content} {xattrs:?} as {first}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev(),
            ),
        );
    }
    known
}

#[track_caller]
fn assert_same_tree(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (tree(ours), tree(theirs));
    for name in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(name), theirs.get(name), "{}", name.escape_ascii());
    }
}

// Archives, header by header, since a builder would refuse what is hostile.

fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"", content.as_bytes())
}

fn directory(name: &str) -> Vec<u8> {
    entry(b'5', name.as_bytes(), b"", b"")
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(b'2', name.as_bytes(), target.as_bytes(), b"")
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    entry(b'1', name.as_bytes(), target.as_bytes(), b"")
}

/// A PAX header for the next entry. Its values may hold anything.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
        content.extend(format!("{length} {key}=").into_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    let mut bytes = entry(b'x', b"PaxHeaders/x", b"", &content);
    // PAX headers belong to ustar archives.
    bytes[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut bytes);
    bytes
}

fn checksum(bytes: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn simple() -> TestLayer {
    TestLayer::gzip(&archive(&[directory("etc/"), file("etc/motd", "hello"), file("etc/.wh.shadow", "")]))
}

/// A tree with every kind of entry and the awkward names, owners, modes, times and attributes.
fn furnish(root: &Path) {
    let script = r#"
        set -e
        umask 022
        mkdir -p etc usr/bin sticky setgid empty dev deep .wh..wh.plnk
        echo root > etc/passwd; : > etc/.wh.shadow; : > .wh..wh..opq; : > .wh.gone; : > etc/empty
        echo x > usr/bin/su; chown 0:42 usr/bin/su; chmod 4755 usr/bin/su
        echo y > usr/bin/wall; chmod 2711 usr/bin/wall
        echo z > usr/bin/none; chmod 0 usr/bin/none
        cp usr/bin/wall usr/bin/ping
        chmod 1777 sticky; chown 12:34 setgid; chmod 2775 setgid; chmod 0 empty
        ln -s ../etc/passwd usr/link; ln -s /absolute/target usr/absolute; ln -s nowhere usr/dangling
        chown -h 77:88 usr/link; touch -h -d '2001-02-03 04:05:06.789' usr/link
        ln etc/passwd etc/passwd2; ln usr/link usr/link2; ln usr/bin/ping usr/bin/ping2
        mknod dev/null c 1 3; chmod 666 dev/null; mknod dev/whiteout c 0 0; mknod dev/sda b 8 0; mkfifo dev/fifo
        mknod dev/large c 300 70000; ln dev/null dev/null2
        chown 5:6 dev/sda dev/fifo
        echo big > big-owner; chown 3000000000:2097152 big-owner
        touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '1901-12-14 00:00:00 UTC' very-old
        touch -d '2039-01-01 00:00:00.123456789 UTC' new
        printf 'newline' > "$(printf 'new\nline')"; printf 'b' > "$(printf 'not-\377\376-utf8')"
        printf 'c' > "quote'\"\\ space"; printf 'd' > -dash; printf e > ümläut
        long=$(printf 'n%.0s' $(seq 255)); printf 'l' > "$long"; ln -s "$long/$long" deep/long-link
        d=deep; for i in $(seq 30); do d=$d/directory-$i; done; mkdir -p "$d"; printf f > "$d/file"; ln "$d/file" deep/near
        truncate -s 10M sparse; printf 'middle' | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
        printf 'end' >> sparse; truncate -s 3M all-hole
        seq 200000 > large
        touch -d '2003-03-03 03:03:03.3' deep usr usr/bin etc .
    "#;
    let status = Command::new("bash").arg("-c").arg(script).current_dir(root).status().unwrap();
    assert!(status.success());
    let set = |name: &str, key: &str, value: &[u8]| xattr::set(root.join(name), key, value).unwrap();
    set("etc/passwd", "user.binary", b"\0\n\xff\n20 path=../../evil\n=x");
    set("etc/empty", "user.empty", b"");
    set("etc", "user.directory", b"yes");
    set("usr/link", "trusted.on-a-link", b"1");
    set("dev/null", "trusted.on-a-device", b"2");
    // CAP_NET_RAW, effective; version 2.
    set("usr/bin/ping", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    set("setgid", "trusted.overlay.opaque", b"y");
}

fn gnu_tar(arguments: &[&str], root: &Path) {
    let output = Command::new("tar").args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Unpacks what GNU tar packs with `options`, and compares with what GNU tar unpacks.
#[track_caller]
fn compare_with_gnu_tar(options: &[&str]) {
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name);
    fs::create_dir(path("from")).unwrap();
    fs::create_dir(path("to")).unwrap();
    furnish(&path("from"));
    let tar = path("layer.tar");
    let tar_name = tar.to_str().unwrap();
    let mut arguments = vec!["-cf", tar_name, "--numeric-owner"];
    arguments.extend(options);
    arguments.push(".");
    gnu_tar(&arguments, &path("from"));
    gnu_tar(&["--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-xpf", tar_name], &path("to"));
    let layer = TestLayer::gzip(&fs::read(&tar).unwrap());
    let bench = Bench::new(std::slice::from_ref(&layer));
    bench.unpack();
    assert_same_tree(&bench.layerfs(&layer), &path("to"));
    // Not only as large, but as sparse.
    if options.contains(&"--sparse") {
        let blocks = |root: &Path| root.join("sparse").metadata().unwrap().blocks();
        assert_eq!(blocks(&bench.layerfs(&layer)), blocks(&path("to")));
    }
}

#[test]
fn a_layer_is_what_gnu_tar_makes_of_it() {
    need_root!();
    let xattrs = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    compare_with_gnu_tar(&xattrs);
    for version in ["0.0", "0.1", "1.0"] {
        compare_with_gnu_tar(&[&xattrs[..], &["--sparse", &format!("--sparse-version={version}")]].concat());
    }
}

#[test]
fn the_gnu_format_too() {
    need_root!();
    compare_with_gnu_tar(&["--format=gnu", "--sparse"]);
}

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
        ("has more than 2097152 bytes", endless_sparse_map()),
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

/// A sparse file of the GNU format, whose map has blocks without a piece that only say that another one follows.
fn endless_sparse_map() -> Vec<Vec<u8>> {
    let mut header = entry(b'S', b"f", b"", b"");
    header[482] = 1;
    checksum(&mut header);
    let mut block = vec![0; 512];
    block[504] = 1;
    vec![header, block.repeat(8192)]
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

#[test]
fn good_layers_stay_when_another_fails() {
    need_root!();
    let good = simple();
    let bad = TestLayer::gzip(&archive(&[file("../x", "x")]));
    let bench = Bench::new(&[good.clone(), bad]);
    assert!(!bench.run(&["--jobs", "1"]).status.success());
    assert!(bench.layerfs(&good).join("etc/motd").exists());
    assert_eq!(bench.staging(), [""; 0]);
}

#[test]
fn repeated_layers_and_repeated_runs_do_nothing_twice() {
    need_root!();
    let empty = TestLayer::gzip(&archive(&[]));
    let layer = simple();
    let bench = Bench::new(&[empty.clone(), layer.clone(), empty.clone()]);
    let summary = bench.unpack();
    assert!(summary.contains("3 layers: 2 new") && summary.contains("1 repeated"), "{summary}");
    let inode = bench.layerfs(&layer).metadata().unwrap().ino();
    assert_eq!(bench.unpack(), "3 layers: 0 new, 2 there already, 1 repeated\n");
    assert_eq!(bench.layerfs(&layer).metadata().unwrap().ino(), inode);
    assert_eq!(list(&bench.layerfs(&empty)), [""; 0]);
}

/// So many small files that unpacking takes a while.
fn slow_layer(n: usize) -> TestLayer {
    let content = "content".repeat(100);
    let entries: Vec<Vec<u8>> = (0..n).map(|i| file(&format!("d{}/f{i}", i % 100), &content)).collect();
    TestLayer::plain(&archive(&entries))
}

#[test]
fn two_runs_at_once_share_the_work_safely() {
    need_root!();
    let layers: Vec<TestLayer> = (0..6).map(|i| slow_layer(500 + i)).collect();
    let bench = Bench::new(&layers);
    let start = || bench.command(&bench.image()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let runs = [start(), start(), start()];
    let mut new = 0;
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = String::from_utf8(output.stdout).unwrap();
        new += summary["6 layers: ".len()..].split(' ').next().unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(new, 6, "each layer is published once");
    assert_eq!(bench.staging(), [""; 0]);
    for (i, layer) in layers.iter().enumerate() {
        let files = walkdir::WalkDir::new(bench.layerfs(layer))
            .into_iter()
            .filter(|e| e.as_ref().unwrap().file_type().is_file());
        assert_eq!(files.count(), 500 + i);
    }
}

#[test]
fn a_killed_run_leaves_nothing_visible_and_the_next_cleans_up() {
    need_root!();
    let layer = slow_layer(60_000);
    let bench = Bench::new(std::slice::from_ref(&layer));
    let mut run = bench.command(&bench.image()).stderr(Stdio::null()).spawn().unwrap();
    let staging = bench.path("repository/.layers/.tmp");
    let deadline = Instant::now() + Duration::from_secs(30);
    let begun = || {
        let entries = fs::read_dir(&staging).into_iter().flatten().flatten();
        entries.map(|e| e.path().join("layerfs/d7")).any(|path| path.exists())
    };
    while !begun() {
        assert!(Instant::now() < deadline && run.try_wait().unwrap().is_none(), "it was never seen at work");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(bench.staging().len(), 2, "a directory and its lock");
    assert!(!bench.layer_directory(&layer.digest).exists());
    bench.unpack();
    assert_eq!(bench.staging(), [""; 0]);
    assert!(bench.layerfs(&layer).join("d99/f59999").exists());
}

#[test]
fn an_archive_is_as_good_as_a_directory() {
    need_root!();
    let layers = [simple(), TestLayer::gzip(&archive(&[file("x", "x")]))];
    let bench = Bench::new(&layers);
    bench.unpack();
    let expected = layers.each_ref().map(|layer| tree(&bench.layerfs(layer)));
    for (options, name) in
        [("-cf", "plain.tar"), ("-czf", "gzip.tar.gz"), ("-cf", "dotted.tar"), ("--zstd -cf", "zstd.tar")]
    {
        let tar = bench.path(name);
        let what = if name == "dotted.tar" { vec!["."] } else { vec!["index.json", "blobs", "oci-layout"] };
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.push(tar.to_str().unwrap());
        arguments.extend(what);
        gnu_tar(&arguments, &bench.image());
        fs::remove_dir_all(bench.path("repository")).unwrap();
        let output = bench.command(&tar).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(layers.each_ref().map(|layer| tree(&bench.layerfs(layer))) == expected, "{name}");
        assert_eq!(bench.staging(), [""; 0]);
    }
}

#[test]
fn images_are_chosen_by_name_and_platform() {
    need_root!();
    let layers: Vec<TestLayer> = (0..3).map(|i| TestLayer::gzip(&archive(&[file("n", &i.to_string())]))).collect();
    let bench = Bench::new(&[]);
    let mut amd = bench.add_image(&layers[..1], "linux", "amd64");
    let mut arm = bench.add_image(&layers[1..2], "linux", "arm64");
    arm["platform"]["variant"] = json!("v8");
    let nested = json!({ "schemaVersion": 2, "manifests": [amd, arm] }).to_string();
    let nested = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": format!("sha256:{}", bench.blob(nested.as_bytes())),
        "size": nested.len(),
        "annotations": { "org.opencontainers.image.ref.name": "first" },
    });
    let mut second = bench.add_image(&layers[2..], "linux", "amd64");
    second["annotations"] = json!({ "io.containerd.image.name": "example/second:1" });
    amd["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    amd["digest"] = json!(format!("sha256:{}", "cd".repeat(32)));
    amd["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    bench.write_index(&[nested, second, amd]);
    let message = bench.refuse(&["--platform", "linux/amd64"]);
    assert!(message.contains("several images fit") && message.contains("example/second:1"), "{message}");
    let message = bench.refuse(&["--platform", "linux/s390x"]);
    assert!(
        message.contains("no image here fits linux/s390x") && message.contains("linux/arm64/v8  first"),
        "{message}"
    );
    assert!(bench.refuse(&["--platform", "linux"]).contains("is not a platform"));
    bench.assert_nothing_appeared();
    for (arguments, chosen) in [
        (["--platform", "linux/arm64"].as_slice(), 1),
        (&["--platform", "linux/amd64", "--ref", "first"], 0),
        (&["--ref", "example/second:1"], 2),
    ] {
        assert!(!bench.layerfs(&layers[chosen]).exists());
        assert!(bench.run(arguments).status.success());
        assert!(bench.layerfs(&layers[chosen]).exists());
    }
}

#[test]
fn what_cannot_be_unpacked_is_said_in_words() {
    need_root!();
    let layer = simple();
    // Not there, not an image, docker's format.
    let bench = Bench::new(std::slice::from_ref(&layer));
    let message = |image: &Path| String::from_utf8(bench.command(image).output().unwrap().stderr).unwrap();
    assert!(message(&bench.path("missing")).contains("No such file"));
    assert!(!bench.path("repository").exists(), "a wrong name makes nothing");
    fs::write(bench.path("text"), "text").unwrap();
    assert!(message(&bench.path("text")).contains("not an OCI layout"));
    fs::write(bench.path("docker.tar"), archive(&[file("manifest.json", "[]")])).unwrap();
    assert!(message(&bench.path("docker.tar")).contains("skopeo copy docker-archive:"));
    fs::create_dir(bench.path("dir")).unwrap();
    fs::write(bench.path("dir/manifest.json"), "{}").unwrap();
    assert!(message(&bench.path("dir")).contains("skopeo copy dir:"));
    // A layer that is not in the copy.
    let blob = bench.image().join("blobs/sha256").join(&layer.digest);
    fs::remove_file(&blob).unwrap();
    assert!(bench.refuse(&[]).contains("the copy is not complete"));
    let foreign =
        TestLayer { media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ..layer.clone() };
    let bench = Bench::new(&[foreign]);
    bench.unpack();
    fs::remove_dir_all(bench.path("repository")).unwrap();
    fs::remove_file(bench.image().join("blobs/sha256").join(&layer.digest)).unwrap();
    assert!(bench.refuse(&[]).contains("non-distributable"));
    // A damaged manifest.
    let bench = Bench::new(std::slice::from_ref(&layer));
    let index: Value = serde_json::from_slice(&fs::read(bench.image().join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    fs::write(bench.image().join("blobs/sha256").join(manifest), "{}").unwrap();
    assert!(bench.refuse(&[]).contains("manifest is damaged"));
    bench.assert_nothing_appeared();
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    need_root!();
    let layer = slow_layer(3000);
    let bench = Bench::new(std::slice::from_ref(&layer));
    let repository = bench.path("repository");
    fs::create_dir(&repository).unwrap();
    // In a mount namespace of its own, which takes the file system with it.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$2\" || exit 99; \"$0\" unpack \"$1\" \"$2\"; code=$?; \
                  ls -A \"$2/.layers\" \"$2/.layers/.tmp\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, env!("CARGO_BIN_EXE_cvmfs-snapshotter")]);
    let output = command.arg(bench.image()).arg(&repository).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(99) || message.starts_with("unshare:") {
        return skip::skip(&format!("it cannot mount here: {}", message.trim()));
    }
    assert!(!output.status.success());
    assert!(message.contains("No space left on device") && message.contains("entry \"d"), "{message}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
    assert_eq!(lines, [".tmp"]);
}

#[test]
fn without_root_it_says_so() {
    need_root!();
    let bench = Bench::new(&[simple()]);
    // The program itself may lie where that user cannot go: it is handed over as an open file.
    let script = "exec setpriv --reuid 65534 --clear-groups /proc/self/fd/3 unpack \"$1\" \"$2\" 3<\"$0\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_cvmfs-snapshotter")]);
    let output = command.arg(bench.image()).arg(bench.path("repository")).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(127) || output.status.code() == Some(126) {
        return skip::skip(&format!("it cannot become another user here: {}", message.trim()));
    }
    assert!(message.contains("must run as root"), "{message}");
    assert!(!bench.path("repository").exists());
}
