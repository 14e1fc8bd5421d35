//! Layers that are small as a blob and large in other ways: the real `unpack`, with little memory and few descriptors.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use hostile::archive::record;
use hostile::unpack::{Flag, write_image};
use testkit::{is_root, programs};

/// As a login shell has them.
const DESCRIPTORS: u64 = 1024;

/// A layer that is written entry by entry.
struct Bomb(zstd::stream::write::Encoder<'static, Vec<u8>>);

impl Bomb {
    fn new() -> Self {
        Self(zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder"))
    }

    fn put(&mut self, kind: u8, name: &[u8], content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
        for piece in [&header.as_bytes()[..], content, &padding] {
            self.0.write_all(piece).expect("compression in memory");
        }
    }

    fn directory(&mut self, records: &[u8]) {
        self.put(b'x', b"x", records);
        self.put(b'5', b"d", b"");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.write_all(&[0; 1024]).and_then(|()| self.0.finish()).expect("compression in memory")
    }
}

/// Unpacks a layer into a directory of its own, with so many MiB of memory.
fn unpack(directory: &Path, flags: u8, blob: &[u8], memory: u64) -> Output {
    write_image(&directory.join("image"), flags, blob);
    run(directory, &directory.join("image"), memory)
}

fn run(directory: &Path, image: &Path, memory: u64) -> Output {
    Command::new("prlimit")
        .args([format!("--data={}", memory << 20), format!("--nofile={DESCRIPTORS}"), "--core=0".to_owned()])
        .args([&programs::daemon(), Path::new("unpack"), image])
        .arg(directory.join("target"))
        .output()
        .expect("prlimit")
}

/// The message of a run that fails in an orderly way.
fn refusal(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && !message.contains("panicked"), "{}: {message}", output.status);
    message
}

fn staging(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("target/.layers/.tmp")).expect("the staging directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_layer_deeper_than_there_are_descriptors_leaves_nothing() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    bomb.directory(&record(b"path", "d/".repeat(2000).as_bytes()));
    let blob = bomb.end();
    let message = refusal(&unpack(directory.path(), Flag::WRONG_DIGEST, &blob, 64));
    assert!(message.contains("damaged"), "{message}");
    assert_eq!(staging(directory.path()), [""; 0]);
    // The next run is not in the way of anything either.
    fs::remove_dir_all(directory.path().join("image")).expect("a removal");
    let output = unpack(directory.path(), 0, &blob, 64);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn extended_attributes_of_directories_are_not_collected() {
    if !is_root() {
        return;
    }
    let value = vec![b'v'; 60 << 10];
    let records: Vec<u8> = (0..16).flat_map(|n| record(format!("SCHILY.xattr.user.{n}").as_bytes(), &value)).collect();
    for same in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut bomb = Bomb::new();
        for n in 0..120 {
            let name = if same { 0 } else { n };
            bomb.directory(&[&records[..], &record(b"path", format!("d{name}").as_bytes())].concat());
        }
        // Some file systems take so many attributes, others do not.
        let output = unpack(directory.path(), 0, &bomb.end(), 64);
        if !output.status.success() {
            let message = refusal(&output);
            assert!(message.contains("extended attribute"), "{message}");
            assert_eq!(staging(directory.path()), [""; 0]);
        }
    }
}

#[test]
fn directories_that_do_not_fit_into_memory_refuse_the_layer() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    // Kept to the end like its name, since all that is made in a directory inherits it.
    let acl = record(b"SCHILY.xattr.system.posix_acl_default", &vec![0; 64 << 10]);
    for n in 0..2500 {
        bomb.directory(&[&acl[..], &record(b"path", n.to_string().as_bytes())].concat());
    }
    let message = refusal(&unpack(directory.path(), 0, &bomb.end(), 256));
    assert!(message.contains("directories"), "{message}");
    assert_eq!(staging(directory.path()), [""; 0]);
}

#[test]
fn an_image_archive_of_many_names_takes_no_memory_for_them() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    let deep = "d".repeat(3900);
    for n in 0..30_000 {
        bomb.put(b'x', b"x", &record(b"path", format!("{deep}{n}").as_bytes()));
        bomb.put(b'0', b"f", b"");
    }
    let image = directory.path().join("image");
    fs::write(&image, bomb.end()).expect("an image");
    let message = refusal(&run(directory.path(), &image, 64));
    assert!(message.contains("no index.json"), "{message}");
    assert_eq!(staging(directory.path()), [""; 0]);
}

#[test]
fn what_follows_the_end_of_an_archive_is_bounded() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    bomb.directory(b"");
    for _ in 0..80 {
        bomb.0.write_all(&vec![0; 1 << 20]).expect("compression in memory");
    }
    let message = refusal(&unpack(directory.path(), 0, &bomb.end(), 64));
    assert!(message.contains("follow the end of the archive"), "{message}");
    assert_eq!(staging(directory.path()), [""; 0]);
}

/// The parser begins anew with each block of a map.
#[test]
fn maps_of_sparse_files_take_a_bounded_time() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    let pieces = 9000;
    let records = [("major", "1"), ("minor", "0"), ("name", "sparse"), ("realsize", "9000")];
    let records = records.map(|(key, value)| record(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes())).concat();
    let mut map = format!("{pieces}\n");
    for offset in 0..pieces {
        map += &format!("{offset:0>150}\n0\n");
    }
    let map = format!("{map}{}", "\0".repeat(map.len().next_multiple_of(512) - map.len()));
    for _ in 0..4 {
        bomb.put(b'x', b"x", &records);
        bomb.put(b'0', b"f", map.as_bytes());
    }
    let message = refusal(&unpack(directory.path(), 0, &bomb.end(), 64));
    assert!(message.contains("maps of its sparse files"), "{message}");
    assert_eq!(staging(directory.path()), [""; 0]);
}

#[test]
fn indexes_within_indexes_are_bounded() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    write_image(&image, 0, &Bomb::new().end());
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let index = image.join("index.json");
    let mut entry = read(&index)["manifests"][0].clone();
    for _ in 0..4 {
        let entries = vec![entry; 100];
        let content = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        let digest = cvmfs_snapshotter::digest::Digest::of(content.as_bytes());
        fs::write(image.join("blobs/sha256").join(digest.hex()), &content).expect("an index");
        entry = serde_json::json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.to_string(), "size": content.len(),
        });
    }
    let content = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    fs::write(&index, content).expect("the index");
    let message = refusal(&run(directory.path(), &image, 64));
    assert!(message.contains("entries in all its indexes"), "{message}");
}

#[test]
fn an_index_that_is_a_pipe_is_refused() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    fs::create_dir(&image).expect("a directory");
    nix::unistd::mkfifo(&image.join("index.json"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let message = refusal(&run(directory.path(), &image, 64));
    assert!(message.contains("not a regular file"), "{message}");
}

#[test]
fn an_image_archive_that_is_cut_off_is_told_from_another_format() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut bomb = Bomb::new();
    bomb.put(b'0', b"blobs/sha256/x", &[7; 5000]);
    let whole = zstd::decode_all(&bomb.end()[..]).expect("an archive");
    let image = directory.path().join("image");
    // After an entry, in its content, and behind it.
    for cut in [512, 512 + 3000, 512 + 5120] {
        fs::write(&image, &whole[..cut]).expect("an image");
        let message = refusal(&run(directory.path(), &image, 64));
        assert!(message.contains("it is cut off"), "{cut}: {message}");
    }
    fs::write(&image, &whole).expect("an image");
    assert!(refusal(&run(directory.path(), &image, 64)).contains("it has no index.json"));
}
