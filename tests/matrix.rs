//! The main path with every client on every containerd: pull without a layer from the registry, run, look at the files,
//! remove, and nothing is left. Prints the table that docs/install.md shows, and checks that it does.
//!
//! Ignored unless asked for, as it takes a while and containerd 1.7 besides what the other tests need:
//! `make test-matrix`.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::inside::prints;
use testkit::{
    Containerd, Daemon, Entry, Image, Mock, Nerdctl, Options, Registry, Sandbox, Snapshotter, Version, Written,
    wait_until,
};

const CTR_SNAPSHOTTER: &str = "--snapshotter=cvmfs-snapshotter";
const VERSIONS: [Version; 4] = [Version::V1_6, Version::V1_7, Version::V2_3, Version::V2_4];
const CLIENTS: [Client; 4] =
    [Client::Nerdctl(Nerdctl::V1_7), Client::Nerdctl(Nerdctl::V2_3), Client::Ctr, Client::Crictl];
/// containerd collects garbage some moments after the last user of a snapshot is gone.
const GARBAGE_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Client {
    Nerdctl(Nerdctl),
    /// The one that belongs to containerd.
    Ctr,
    Crictl,
}

/// Where the layers come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layers {
    InPlace,
    /// The client does not say what it pulls.
    Downloaded,
}

/// What is known to be so; all else would be a surprise.
fn expected(client: Client, version: Version) -> Layers {
    match (client, version) {
        // It fetches all layers and unpacks them then, without a label.
        (Client::Ctr, Version::V1_6 | Version::V1_7) => Layers::Downloaded,
        _ => Layers::InPlace,
    }
}

/// Every kind of marker, a layer twice, and names, types, modes and owners that are told apart.
fn image(layout: &Path) -> Written {
    Image::pause().write(layout, "test/pause:1");
    let below = vec![
        Entry::dir("data"),
        Entry::file("data/deleted", "below"),
        Entry::file("data/kept", "below").owner(1000, 1000).mode(0o640),
        Entry::dir("data/opaque").mode(0o750),
        Entry::file("data/opaque/deleted", "below"),
        Entry::dir("data/replaced"),
        Entry::file("data/replaced/deleted", "below"),
        Entry::file("data/changed", "below"),
    ];
    let above = vec![
        Entry::dir("data").mode(0o711),
        Entry::whiteout("data/deleted"),
        Entry::dir("data/opaque").mode(0o700).owner(1000, 0),
        Entry::opaque("data/opaque"),
        Entry::file("data/opaque/new", "above"),
        Entry::file("data/replaced", "above"),
        Entry::file("data/changed", "above").mode(0o4755),
        Entry::symlink("data/link", "kept"),
    ];
    let empty = Vec::new;
    Image::busybox().layer(below).layer(empty()).layer(above).layer(empty()).write(layout, "test/box:1")
}

/// Sorted, and without the sizes of directories, which are up to the file system.
const LIST: &str =
    r#"find /data -print -exec stat -c '%n %A %u:%g %s' {} \; | sed 's/^\(.* d[^ ]* [^ ]*\) .*/\1/' | sort"#;
const TREE: &str = "\
/data
/data drwx--x--x 0:0
/data/changed
/data/changed -rwsr-xr-x 0:0 5
/data/kept
/data/kept -rw-r----- 1000:1000 5
/data/link
/data/link lrwxrwxrwx 0:0 4
/data/opaque
/data/opaque drwx------ 1000:0
/data/opaque/new
/data/opaque/new -rw-r--r-- 0:0 5
/data/replaced
/data/replaced -rw-r--r-- 0:0 5";

/// The main path; panics where it does not do what it should.
fn main_path(client: Client, version: Version) -> Layers {
    let sandbox = Sandbox::new();
    let layout = sandbox.join("layout");
    let image = image(&layout);
    let published = sandbox.mkdir("published");
    for name in ["test/box:1", "test/pause:1"] {
        let mut unpack = Command::new(testkit::programs::daemon());
        unpack.arg("unpack").arg(&layout).arg(&published).args(["--quiet", "--ref", name]);
        assert!(unpack.status().expect("our program").success());
    }
    let repository = sandbox.mkdir("cvmfs");
    let _mock = Mock::start(&published, &repository, Options::default());
    let config =
        format!("[[repositories]]\nname = \"test.cern.ch\"\npath = \"{}\"\nkind = \"cvmfs\"\n", repository.display());
    let daemon = Daemon::start_in(&sandbox, &config);
    let registry = Registry::start(&layout).expect("the registry");
    let wanted = expected(client, version);
    if wanted == Layers::InPlace {
        registry.withhold_layers().expect("the layers of the layout");
    }
    let containerd = Containerd::start(&sandbox, version, Snapshotter::Cvmfs(&daemon), &registry);

    let snapshots = daemon.root().join("snapshots");
    let in_store = || std::fs::read_dir(&snapshots).expect("the snapshots").flatten().map(|entry| entry.path());
    let links = || in_store().filter(|path| path.join("fs").is_symlink()).count();
    pull_and_run(client, &containerd, &registry);
    let asked = image.layers.iter().filter(|layer| registry.asked_for(&layer.digest) > 0).count();
    let layers = match (asked, links() >= image.layers.len()) {
        (0, true) => Layers::InPlace,
        (all, false) if all == image.layers.len() => Layers::Downloaded,
        (asked, _) => panic!("{asked} layers were asked for, {} are in place", links()),
    };
    remove(client, &containerd, &registry);
    let left = || in_store().count();
    assert!(wait_until(GARBAGE_LIMIT, || left() == 0), "{} snapshots are left", left());
    layers
}

/// Pulls and runs the image, which compares its files itself.
fn pull_and_run(client: Client, containerd: &Containerd<'_>, registry: &Registry) {
    let reference = registry.reference("test/box:1");
    let compare = prints(TREE, &["sh", "-c", LIST]);
    match client {
        Client::Nerdctl(version) => {
            containerd.nerdctl(version, &["pull", &reference]).ok();
            let run = ["run", "--rm", "--network=none", &reference];
            containerd.nerdctl(version, &[&run[..], &compare].concat()).ok();
        }
        Client::Ctr => {
            containerd.ctr(&["images", "pull", "--plain-http", CTR_SNAPSHOTTER, &reference]).ok();
            let run = ["run", "--rm", CTR_SNAPSHOTTER, &reference, "box"];
            containerd.ctr(&[&run[..], &compare].concat()).ok();
        }
        Client::Crictl => {
            containerd.crictl(&["pull", &reference]).ok();
            let pod = containerd.run_pod("pod");
            let container = containerd.run_in_pod(&pod, "box", &reference, &["sleep", "1000"]);
            containerd.crictl(&[&["exec", &container], &compare[..]].concat()).ok();
        }
    }
}

fn remove(client: Client, containerd: &Containerd<'_>, registry: &Registry) {
    let reference = registry.reference("test/box:1");
    match client {
        Client::Nerdctl(version) => drop(containerd.nerdctl(version, &["rmi", &reference]).ok()),
        Client::Ctr => drop(containerd.ctr(&["images", "rm", "--sync", &reference]).ok()),
        Client::Crictl => {
            containerd.crictl(&["rmp", "--force", "--all"]).ok();
            containerd.crictl(&["rmi", &reference, &registry.reference("test/pause:1")]).ok();
        }
    }
}

/// What a program says its version is.
fn version_of(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().expect("a program of the tests");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = regex::Regex::new(r"\bv?(\d+\.\d+\.\d+)").expect("a constant");
    let found = version.captures(&text).unwrap_or_else(|| panic!("{}: {text}", program.display()));
    found[1].to_owned()
}

fn heading(client: Client) -> String {
    match client {
        Client::Nerdctl(version) => format!("nerdctl {}", version_of(&version.program())),
        Client::Ctr => "ctr (of containerd)".into(),
        Client::Crictl => format!("crictl {}", version_of(&testkit::programs::tool("crictl", "crictl"))),
    }
}

#[test]
#[ignore = "long: make test-matrix"]
fn the_table_of_the_documents_is_true() {
    if !testkit::has_fuse() {
        return;
    }
    let mut table = String::from("|");
    for version in VERSIONS {
        let _ = write!(table, " | containerd {}", version_of(&version.bin().join("containerd")));
    }
    table += " |\n|---|---|---|---|---|\n";
    let mut failed = Vec::new();
    for client in CLIENTS {
        let _ = write!(table, "| {}", heading(client));
        for version in VERSIONS {
            let start = std::time::Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| main_path(client, version)));
            println!("{client:?} on {version:?}: {result:?} in {:.1} s", start.elapsed().as_secs_f64());
            let cell = match &result {
                Ok(Layers::InPlace) => "in place",
                Ok(Layers::Downloaded) => "downloads",
                Err(_) => "fails",
            };
            let _ = write!(table, " | {cell}");
            if !result.is_ok_and(|layers| layers == expected(client, version)) {
                failed.push(format!("{client:?} on {version:?}"));
            }
        }
        table += " |\n";
    }
    println!("\n{table}");
    assert!(failed.is_empty(), "{failed:?}");
    let page = "docs/install.md";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect(page);
    assert!(text.contains(&table), "{page} has another table: put the one above there");
}
