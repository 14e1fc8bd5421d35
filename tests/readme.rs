//! Whether what the README and the pages in `docs` tell people to write and to type works.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use toml::Value;

use testkit::documents::{blocks, blocks_of, read};
use testkit::inside::prints;
use testkit::{
    Containerd, Daemon, Entry, Image, Mock, Nerdctl, Options, Output, Registry, Sandbox, Snapshotter, Version, run,
};

/// How the blocks of each document are tested. A block that is not run says why here.
const KNOWN: [(&str, &[&str]); 17] = [
    // By hand: Nix is not there.
    ("README.md", &["make", "by hand", "picture"]),
    ("ARCHITECTURE.md", &["picture", "text"]),
    ("CONTRIBUTING.md", &[]),
    ("CHANGELOG.md", &[]),
    ("SECURITY.md", &[]),
    ("docs/cernvm-fs.md", &["text"]),
    ("docs/configuration.md", &["config check"]),
    ("docs/contract.md", &["text"]),
    ("docs/design.md", &[]),
    // By hand: they install on this machine, or are for NixOS.
    ("docs/install.md", &["by hand", "containerd 1", "containerd 2", "shell: use", "shell: switch"]),
    // Those with these names are read by the tests in tests/kubernetes.
    (
        "docs/kubernetes.md",
        &["make", "not here", "containerd: overlayfs on request", "containerd: on request", "migration"],
    ),
    ("docs/limits.md", &[]),
    // By hand: as in the README.
    ("docs/nix.md", &["by hand"]),
    ("docs/nixos-options.md", &[]),
    ("docs/publishing.md", &["config check", "shell: publish"]),
    ("docs/reliability.md", &["make"]),
    // Text: each line has a name to fill in.
    ("docs/troubleshooting.md", &["text"]),
];

/// All documents for people, and how their blocks may be tested.
fn documents() -> Vec<(String, &'static [&'static str])> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = Vec::new();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let name = format!("{folder}{}", entry.expect("an entry").file_name().to_string_lossy());
            if name.ends_with(".md") {
                let known = KNOWN.iter().find(|(known, _)| *known == name);
                let (_, kinds) = known.unwrap_or_else(|| panic!("{name} is new: say how its blocks are tested"));
                documents.push((name, *kinds));
            }
        }
    }
    documents
}

fn program(args: &[&str]) -> String {
    let output = Command::new(testkit::programs::daemon()).args(args).output().expect("our program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn parse(text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_block_is_tested() {
    let makefile = read("Makefile");
    let documents = documents();
    assert!(documents.len() > 10, "{documents:?}");
    for (document, kinds) in documents {
        let blocks = blocks(&document);
        for block in &blocks {
            assert!(kinds.contains(&block.run.as_str()), "{document}: {:?} is not tested", block.run);
        }
        for line in blocks.iter().filter(|block| block.run == "make").flat_map(|block| block.text.lines()) {
            let target = line.strip_prefix("make ").and_then(|words| words.split(' ').next()).expect("make");
            assert!(makefile.contains(&format!("\n{target}:")), "{document}: {target}");
        }
    }
}

#[test]
fn the_configuration_is_valid_and_complete() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.toml");
    let path = file.to_str().expect("ASCII");
    let complete = blocks_of("docs/configuration.md", "config check");
    for block in complete.iter().chain(&blocks_of("docs/publishing.md", "config check")) {
        fs::write(&file, block).expect("a file");
        program(&["--config", path, "config", "check"]);
    }
    fs::write(&file, "").expect("a file");
    let defaults = parse(&program(&["--config", path, "config", "dump"]));
    let mut shown = parse(&complete[0]);
    shown["repositories"].as_array_mut().expect("repositories").truncate(1);
    assert_eq!(shown, defaults, "what the page calls the defaults");
}

#[test]
fn the_blocks_for_containerd_are_what_we_print_and_containerd_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.toml");
    fs::write(&file, "").expect("a file");
    let ours = file.to_str().expect("ASCII");
    let versions = [("1", "1.7", [Version::V1_6, Version::V1_7]), ("2", "2", [Version::V2_3, Version::V2_4])];
    for (name, flag, versions) in versions {
        let block = blocks_of("docs/install.md", &format!("containerd {name}")).concat();
        assert_eq!(block, program(&["--config", ours, "containerd-config", "--for", flag]));
        let theirs = dir.path().join("containerd.toml");
        fs::write(&theirs, &block).expect("a file");
        for version in versions {
            let containerd = version.bin().join("containerd");
            // 1.7 is built for the matrix only.
            if version == Version::V1_7 && !containerd.exists() {
                continue;
            }
            let args = ["--config", theirs.to_str().expect("ASCII"), "config", "dump"];
            let dump = run(containerd, &args, "/usr/bin:/bin", Duration::from_secs(30)).ok();
            let mut told = parse(&block);
            // Later ones turn it into their own.
            told.remove("version");
            if version == Version::V1_6 {
                // 1.6.20 does not know it yet, as the page says.
                told["proxy_plugins"]["cvmfs-snapshotter"].as_table_mut().expect("a table").remove("exports");
            }
            assert!(contains(&Value::Table(parse(&dump)), &Value::Table(told)), "{version:?}: {dump}");
        }
    }
}

#[test]
fn the_matrix_is_about_the_pinned_versions() {
    let page = read("docs/install.md");
    let heading = page.lines().find(|line| line.starts_with("| | containerd")).expect("the table");
    let cells = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split('|').nth(1));
    let rows = cells.map(str::trim).collect::<Vec<_>>();
    for (tool, program) in [
        ("containerd-1.7", "containerd"),
        ("containerd-2.3", "containerd"),
        ("containerd-2.4", "containerd"),
        ("nerdctl-1.7", "nerdctl"),
        ("nerdctl-2.3", "nerdctl"),
        ("crictl", "crictl"),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(tool).join("go.mod");
        let module = fs::read_to_string(&file).expect("go.mod");
        let tool_line =
            module.lines().find_map(|line| line.strip_prefix("tool ").filter(|tool| *tool != "(")).or_else(|| {
                let (_, tools) = module.split_once("tool (\n")?;
                tools.lines().next().map(str::trim)
            });
        let package = tool_line.unwrap_or_else(|| panic!("{}: no tool", file.display()));
        let version = module.lines().find_map(|line| {
            let (name, version) = line.trim().trim_start_matches("require ").split_once(" v")?;
            package.starts_with(name).then(|| version.split(' ').next().unwrap_or_default().to_owned())
        });
        let wanted = format!("{program} {}", version.unwrap_or_else(|| panic!("{}: {package}", file.display())));
        let there = heading.split('|').any(|cell| cell.trim() == wanted) || rows.contains(&wanted.as_str());
        assert!(there, "{wanted} is not in the table: make test-matrix");
    }
}

/// Whether everything of one table is in the other.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Table(all), Value::Table(part)) => {
            part.iter().all(|(key, part)| all.get(key).is_some_and(|all| contains(all, part)))
        }
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(all, part)| contains(all, part))
        }
        _ => all == part,
    }
}

#[test]
fn what_it_tells_to_type_works() {
    if !testkit::has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let layout = sandbox.join("layout");
    Image::pause().write(&layout, "test/pause:1");
    let image = Image::busybox().layer(vec![Entry::file("data", "content")]).cmd(&["/bin/cat", "/data"]);
    let image = image.write(&layout, "test/box:1");
    let published = sandbox.mkdir("published");
    let path = |path: &Path| path.to_str().expect("ASCII").to_owned();
    program(&["unpack", &path(&layout), &path(&published), "--quiet", "--ref", "test/box:1"]);
    let registry = Registry::start(&layout).expect("the registry");
    let config =
        format!("[[repositories]]\nname = \"nfs\"\npath = \"{}\"\nkind = \"directory\"\n", published.display());
    let mut daemon = Daemon::start_in(&sandbox, &config);
    let containerd = Containerd::start(&sandbox, Version::V2_4, Snapshotter::Cvmfs(&daemon), &registry);

    // What the tests use is what the page says, and more.
    let told = blocks_of("docs/install.md", "containerd 2").concat();
    let told = told.replace("/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock", &path(&daemon.socket()));
    let told = parse(&told.replace("/var/lib/containerd-cvmfs-grpc", &path(&daemon.root())));
    let used = parse(&fs::read_to_string(containerd.dir().join("config.toml")).expect("the configuration"));
    assert!(contains(&Value::Table(used), &Value::Table(told)), "the tests use another configuration");

    let reference = registry.reference("test/box:1");
    let bin = clients(&sandbox, &containerd);
    let type_in = |block: &str| -> Output {
        // This host has no bridge for containers.
        let block = block.replace("run --rm", "run --rm --network=none");
        let block = block.replace("IMAGE", &reference).replace("/srv/layers", &path(&sandbox.join("nfs")));
        let script = format!("set -eux -o pipefail; cd {}\n{block}", sandbox.path().display());
        let search = format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin");
        run("bash", &["-c", &script], &search, Duration::from_secs(120))
    };
    let use_it = blocks_of("docs/install.md", "shell: use").concat();
    let publish = blocks_of("docs/publishing.md", "shell: publish").concat();

    let output = type_in(&use_it).ok();
    assert!(output.contains("content") && output.contains(" 0B "), "{output}");
    assert!(image.layers.iter().all(|layer| registry.asked_for(&layer.digest) == 0), "{:?}", registry.accesses());

    let mut output = type_in(&publish);
    // `nerdctl save` may return before all is written; who reads the message types it again.
    for _ in 0..5 {
        if output.status.success() || !output.stderr.contains("it is cut off") {
            break;
        }
        println!("typed again: {}", output.stderr);
        output = type_in(&publish);
    }
    output.ok();
    for layer in &image.layers {
        let digest = layer.digest.trim_start_matches("sha256:");
        let place = sandbox.join("nfs/.layers").join(&digest[..2]).join(digest).join("layerfs");
        assert!(place.is_dir(), "{}", place.display());
    }

    // As after the Go daemon: containerd knows snapshots that the snapshotter does not.
    containerd.crictl(&["pull", &reference]).ok();
    let left =
        || containerd.ctr(&["--namespace", "k8s.io", "snapshots", "--snapshotter", "cvmfs-snapshotter", "ls"]).ok();
    assert!(left().lines().count() > 1);
    daemon.process().stop().expect("the daemon ends");
    fs::rename(daemon.root(), sandbox.join("old")).expect("rename");
    daemon.restart();
    let refused = containerd.nerdctl(Nerdctl::V2_3, &["pull", &reference]).err();
    assert!(refused.contains("already exists"), "{refused}");
    // Also with the steps done too late it works again.
    for block in blocks_of("docs/install.md", "shell: switch") {
        type_in(&block).ok();
    }
    assert_eq!(left().lines().count(), 1, "{}", left());
    assert!(type_in(&use_it).ok().contains("content"));
}

/// What docs/limits.md says of a dead repository.
#[test]
fn a_download_is_forced_by_removing_the_images_that_use_the_layers() {
    if !testkit::has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let layout = sandbox.join("layout");
    let published = sandbox.mkdir("published");
    let box_with =
        |content: &str| Image::busybox().layer(vec![Entry::file("data", content)]).cmd(&["/bin/cat", "/data"]);
    box_with("first").write(&layout, "test/first:1");
    box_with("second").write(&layout, "test/second:1");
    let of = |path: &Path| path.to_str().expect("ASCII").to_owned();
    program(&["unpack", &of(&layout), &of(&published), "--quiet", "--ref", "test/first:1"]);
    let repository = sandbox.mkdir("cvmfs");
    let mut mock = Mock::start(&published, &repository, Options::default());
    let config = format!("[[repositories]]\nname = \"test.cern.ch\"\npath = {repository:?}\nkind = \"cvmfs\"\n");
    let daemon = Daemon::start_in(&sandbox, &config);
    let registry = Registry::start(&layout).expect("the registry");
    let containerd = Containerd::start(&sandbox, Version::V2_4, Snapshotter::Cvmfs(&daemon), &registry);
    let nerdctl = |args: &[&str]| containerd.nerdctl(Nerdctl::V2_3, args);
    let (first, second) = (registry.reference("test/first:1"), registry.reference("test/second:1"));

    nerdctl(&["pull", &first]).ok();
    mock.kill();
    let refused = nerdctl(&["pull", &second]).err();
    assert!(refused.contains("remedy: its client died"), "{refused}");
    let elsewhere = ["--snapshotter=overlayfs", "pull", &second];
    nerdctl(&elsewhere).ok();
    nerdctl(&["rmi", &first, &second]).ok();
    nerdctl(&["pull", &second]).ok();
    nerdctl(&[&["run", "--rm", "--network=none", &second], &prints("second", &["cat", "/data"])[..]].concat()).ok();
}

/// A folder with the clients, which know what a demo has elsewhere than a real host.
fn clients(sandbox: &Sandbox, containerd: &Containerd<'_>) -> String {
    let bin = sandbox.mkdir("bin");
    let write = |name: &str, program: &Path, options: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let script = format!("#!/bin/sh\nexec {} {options} \"$@\"\n", program.display());
        fs::write(bin.join(name), script).expect("a script");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    let socket = containerd.socket();
    write("nerdctl", &Nerdctl::V2_3.program(), &containerd.nerdctl_options().join(" "));
    write("ctr", &Version::V2_4.bin().join("ctr"), &format!("--address {}", socket.display()));
    let endpoint = format!("--runtime-endpoint unix://{0} --image-endpoint unix://{0}", socket.display());
    write("crictl", &testkit::programs::tool("crictl", "crictl"), &endpoint);
    write("cvmfs-snapshotter", &testkit::programs::daemon(), "");
    bin.to_str().expect("ASCII").to_owned()
}
