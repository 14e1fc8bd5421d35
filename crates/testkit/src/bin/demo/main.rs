//! `make demo`: nerdctl pulls and runs an image whose layers come from a repository, beside the same with overlayfs.
//!
//! Everything is real (nerdctl, containerd, runc, the snapshotter) but the registry and, as nobody publishes for a demo,
//! the client of CernVM-FS. All of it lives in one temporary folder, which is gone at the end.

mod screen;
mod subject;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{DecimalBytes, HumanDuration};

use testkit::inside::{lists, prints};
use testkit::programs;
use testkit::{Containerd, Daemon, Mock, Nerdctl, Options, Registry, Sandbox, Snapshotter, Version};

use screen::{Interrupted, quote, run, run_quietly, say, show, title};
use subject::Subject;

/// Shows how an image runs without its layers being downloaded.
#[derive(Parser)]
struct Args {
    /// An OCI layout with an image; without it a small one is made
    #[arg(long)]
    layout: Option<PathBuf>,
}

/// What one of the two ways cost.
struct Cost {
    pull: Duration,
    run: Duration,
    transferred: u64,
    layers: usize,
    disk: u64,
    /// The names of all files in the container.
    tree: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: run it as root: it mounts, and it starts containerd");
        return ExitCode::FAILURE;
    }
    screen::catch_signals();
    let start = Instant::now();
    let result = demo(args);
    match result {
        Ok(()) => {
            say(format_args!("\nCleaned up. All in all {}.", HumanDuration(start.elapsed())));
            ExitCode::SUCCESS
        }
        Err(Interrupted) => {
            say("Cleaned up.");
            ExitCode::from(130)
        }
    }
}

fn demo(args: Args) -> Result<(), Interrupted> {
    let sandbox = Sandbox::new();
    let here = |path: &Path| path.strip_prefix(sandbox.path()).unwrap_or(path).display().to_string();
    say(format_args!(
        "All of this happens in {}, and is gone at the end. Paths below are relative to it.",
        sandbox.path().display()
    ));

    title("1. An image");
    let subject = match args.layout {
        Some(layout) => Subject::existing(layout),
        None => Subject::small(sandbox.join("image")),
    };
    let layers = subject.layers();
    let bytes = layers.iter().map(|layer| layer.bytes).sum::<u64>();
    say(format_args!("{}: {} layers, {} compressed.", subject.name, layers.len(), DecimalBytes(bytes)));
    for layer in &layers {
        let size = DecimalBytes(layer.bytes).to_string();
        quote(&format!("{}  {size:>9}  {}", &layer.digest[..19], layer.remark));
    }
    screen::check()?;

    title("2. Its layers, unpacked once for every host");
    let published = sandbox.mkdir("published");
    let mut unpack = Command::new(programs::daemon());
    unpack.arg("unpack").arg(&subject.layout).arg(&published).args(["--ref", &subject.name]);
    let from = here(&subject.layout);
    run(&format!("cvmfs-snapshotter unpack {from} published --ref {}", subject.name), unpack)?;
    let mut find = Command::new("find");
    find.args([".layers", "-mindepth", "3", "-maxdepth", "3", "-name", "layerfs"]).current_dir(&published);
    run("cd published; find .layers -name layerfs", find)?;
    // In a container it may be there, but not for us.
    let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let repository = if fuse { sandbox.mkdir("cvmfs/demo.example.org") } else { published.clone() };
    let _mock = fuse.then(|| {
        let options = Options { fqrn: "demo.example.org".into(), ..Options::default() };
        Mock::start(&published, &repository, options)
    });
    if fuse {
        say(
            "No CernVM-FS here, so a small FUSE file system stands in for its client: it serves that folder, read-only, at",
        );
        say("cvmfs/demo.example.org, with the catalog files and the oddities of the real one.");
    } else {
        say("No FUSE here, so the folder itself is the repository, as an NFS mount would be.");
    }
    let marked = |dir: &Path| {
        let mut find = Command::new("find");
        find.arg(".layers").args(MARKERS).current_dir(dir);
        find
    };
    let markers = run_quietly(marked(&repository))?.stdout.lines().count();
    say(format_args!("In its layers {markers} files only say what is deleted, or belong to the publisher:"));
    show(&format!("cd {}; find .layers {}", here(&repository), shell(&MARKERS)));
    let mut sample = run_quietly(marked(&repository))?.stdout.lines().map(shorten).collect::<Vec<_>>();
    sample.sort();
    if sample.len() > 12 {
        sample.truncate(12);
        sample.push("...".into());
    }
    quote(&sample.join("\n"));

    title("3. The snapshotter");
    let kind = if fuse { "cvmfs" } else { "directory" };
    let name = if fuse { "demo.example.org" } else { "demo" };
    let config = format!(
        "[[repositories]]\nname = {name:?}\npath = {:?}\nkind = {kind:?}\n",
        repository.to_str().expect("an ASCII path")
    );
    let mounts_before = mounts(&sandbox)?;
    let daemon = Daemon::start_in(&sandbox, &config);
    show("cat snapshotter/config.toml");
    quote(&config);
    show("cvmfs-snapshotter --config snapshotter/config.toml --root snapshotter/root --address snapshotter/s &");
    say("It runs with four capabilities (chown, dac_override, fowner, fsetid), given by setpriv. It cannot mount.");

    title("4. The pull");
    let without = sandbox.join("registry");
    subject.copy_without_layers(&without);
    let registry = Registry::start(&without).expect("a registry");
    say(format_args!("A registry at {} has the manifest and the configuration, but no layer.", registry.host()));
    let containerd = Containerd::start(&sandbox, Version::V2_4, Snapshotter::Cvmfs(&daemon), &registry);
    say("containerd has this in its configuration, beside things that only a demo needs:");
    quote(&excerpt(&containerd));
    say("\"nerdctl\" stands for:");
    quote(&format!("nerdctl {}", containerd.nerdctl_options().join(" ").replace(" --", "\n          --")));
    let ours = pull_and_run(&containerd, &registry, &subject, &[&sandbox.join("snapshotter"), containerd.dir()], true)?;
    assert_eq!(ours.layers, 0, "a layer was asked for: {:?}", registry.accesses());

    title("5. What the container sees");
    let reference = registry.reference(&subject.name);
    let short = format!("nerdctl run --rm --network=none {reference}");
    let in_container =
        |command: &[&str]| containerd.nerdctl_command(NERDCTL, &[&RUN[..], &[&reference], command].concat());
    if subject.layout.starts_with(sandbox.path()) {
        let list = ["ls", "-A", "/app", "/app/cache", "/etc"];
        run(&format!("{short} {}", list.join(" ")), in_container(&list))?;
        run_quietly(in_container(&lists("/app:", "notes.txt|old", &list)))?;
        say("What the fourth layer deletes is gone.");
    }
    let all = [&["find", "/", "-xdev"][..], &MARKERS].concat();
    run(&format!("{short} find / -xdev {}", shell(&MARKERS)), in_container(&all))?;
    run_quietly(in_container(&prints("", &all)))?;
    say(format_args!("Nothing: of the {markers} files from above not one."));

    title("6. What the host sees");
    let detached = ["run", "-d", "--name=demo", "--network=none", &reference, "sleep", "1000"];
    run(&format!("nerdctl {}", detached.join(" ")), containerd.nerdctl_command(NERDCTL, &detached))?;
    let mounts_now = mounts(&sandbox)?;
    show(&format!("grep cvmfs /proc/self/mountinfo | grep {}", sandbox.path().display()));
    quote(if mounts_now.is_empty() { "(nothing)" } else { &mounts_now });
    assert_eq!(mounts_now, mounts_before, "the daemon has mounted something");
    say("With a container running: the same as before the snapshotter was started. It has mounted nothing.");
    let snapshots = daemon.root().join("snapshots");
    let mut links = Command::new("find");
    links.arg(&snapshots).args(["-type", "l", "-printf", "%P -> %l\n"]);
    show("find snapshotter/root/snapshots -type l -printf '%P -> %l\\n'");
    let links = run_quietly(links)?.stdout.replace(&format!("{}/", sandbox.path().display()), "");
    let mut links = links.lines().map(shorten).collect::<Vec<_>>();
    links.sort();
    quote(&links.join("\n"));
    say("A layer that is used in place is a link.");
    run("nerdctl rm -f demo", containerd.nerdctl_command(NERDCTL, &["rm", "-f", "demo"]))?;

    title("7. The same with overlayfs, which comes with containerd");
    let full = Registry::start(&subject.layout).expect("a registry");
    say(format_args!(
        "Another registry, at {}, has the layers as well, and another containerd is as fresh.",
        full.host()
    ));
    let other = Containerd::start_in(&sandbox, "overlayfs", Version::V2_4, Snapshotter::Overlayfs, &full);
    let theirs = pull_and_run(&other, &full, &subject, &[other.dir()], false)?;
    assert_eq!(ours.tree, theirs.tree, "the containers have different files");

    title("8. Side by side");
    let row = |what: &str, ours: String, theirs: String| say(format_args!("  {what:<28}{ours:>19}{theirs:>12}"));
    row("", "cvmfs-snapshotter".into(), "overlayfs".into());
    row("nerdctl pull", seconds(ours.pull), seconds(theirs.pull));
    row("nerdctl run", seconds(ours.run), seconds(theirs.run));
    row("from the registry", DecimalBytes(ours.transferred).to_string(), DecimalBytes(theirs.transferred).to_string());
    row("layers from the registry", ours.layers.to_string(), theirs.layers.to_string());
    row("local disk", DecimalBytes(ours.disk).to_string(), DecimalBytes(theirs.disk).to_string());
    say(format_args!("The containers have the same {} files.", ours.tree.lines().count()));
    say("The registry is on this machine, so a download is as fast as it gets; and so is the repository.");
    if cfg!(debug_assertions) {
        say("The snapshotter is a debug build, which is built sooner and runs slower.");
    }
    Ok(())
}

const NERDCTL: Nerdctl = Nerdctl::V2_3;
const RUN: [&str; 3] = ["run", "--rm", "--network=none"];
const MARKERS: [&str; 7] = ["(", "-name", ".wh.*", "-o", "-name", ".cvmfs*catalog", ")"];

/// Pulls the image, runs its program, and says what it took.
fn pull_and_run(
    containerd: &Containerd<'_>,
    registry: &Registry,
    subject: &Subject,
    dirs: &[&Path],
    images: bool,
) -> Result<Cost, Interrupted> {
    // Reads the programs from the disk as well, so that it is not the first pull that pays for it.
    let version = "{{.Client.Version}} with containerd {{(index .Server.Components 0).Version}}";
    let version = run_quietly(containerd.nerdctl_command(NERDCTL, &["version", "--format", version]))?.stdout;
    say(format_args!("nerdctl {}:", version.trim()));
    registry.forget();
    let before = disk(dirs)?;
    let reference = registry.reference(&subject.name);
    let pull = ["pull", "--quiet", &reference];
    let pull = run(&format!("nerdctl {}", pull.join(" ")), containerd.nerdctl_command(NERDCTL, &pull))?.time;
    let disk = disk(dirs)?.saturating_sub(before);
    let accesses = registry.accesses();
    let sent = accesses.iter().filter(|access| access.method == "GET" && access.status == 200);
    let transferred = sent.map(|access| access.bytes as u64).sum();
    let of_layers = subject.layers().into_iter().map(|layer| layer.digest).collect::<std::collections::BTreeSet<_>>();
    let layers = of_layers.iter().filter(|digest| registry.asked_for(digest) > 0).count();
    say(format_args!(
        "{}; the registry sent {}, and was asked for {layers} layers.",
        seconds(pull),
        DecimalBytes(transferred)
    ));
    if images {
        run("nerdctl images", containerd.nerdctl_command(NERDCTL, &["images"]))?;
        say("SIZE is what it takes on the local disk, BLOB SIZE what a download would have been.");
    }
    let once = [&RUN[..], &[&reference]].concat();
    let run = run(&format!("nerdctl {}", once.join(" ")), containerd.nerdctl_command(NERDCTL, &once))?.time;
    say(format_args!("{}.", seconds(run)));
    // Into a file, as the client may lose what a container prints.
    let out = containerd.dir().join("out");
    std::fs::create_dir_all(&out).expect("a folder for the container");
    let volume = format!("{}:/mnt", out.to_str().expect("an ASCII path"));
    let list = ["sh", "-c", "find / -xdev >/mnt/tree"];
    let list = [&RUN[..], &["--volume", &volume, &reference], &list].concat();
    run_quietly(containerd.nerdctl_command(NERDCTL, &list))?;
    let text = std::fs::read_to_string(out.join("tree")).expect("what the container wrote");
    let mut tree = text.lines().collect::<Vec<_>>();
    tree.sort_unstable();
    assert!(!tree.is_empty(), "the container has listed nothing");
    Ok(Cost { pull, run, transferred, layers, disk, tree: tree.join("\n") })
}

/// The disk that folders take; of file systems mounted in them, nothing.
fn disk(dirs: &[&Path]) -> Result<u64, Interrupted> {
    let mut du = Command::new("du");
    du.args(["-sxck", "--"]).args(dirs);
    let text = run_quietly(du)?.stdout;
    let total = text.lines().last().and_then(|line| line.split('\t').next()).and_then(|kib| kib.parse::<u64>().ok());
    Ok(total.expect("the output of du") * 1024)
}

/// The mounts that have to do with our repository; not with those of others on this host.
fn mounts(sandbox: &Sandbox) -> Result<String, Interrupted> {
    screen::check()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let folder = sandbox.path().to_str().expect("an ASCII path");
    let ours = mounts.lines().filter(|line| line.contains("cvmfs") && line.contains(folder));
    Ok(ours.collect::<Vec<_>>().join("\n"))
}

/// What containerd has to know of the snapshotter.
fn excerpt(containerd: &Containerd<'_>) -> String {
    let text = std::fs::read_to_string(containerd.dir().join("config.toml")).expect("the configuration of containerd");
    let mut wanted = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            wanted = line.starts_with("[proxy_plugins") || line.contains("transfer") || line.contains("cri.v1.images");
        }
        let of_the_demo =
            ["config_path", "pinned_images", "sandbox =", ".registry]"].iter().any(|word| line.contains(word));
        if wanted && !of_the_demo {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Words as one would type them.
fn shell(words: &[&str]) -> String {
    let quoted = |word: &&str| if word.contains(['(', ')', '*']) { format!("'{word}'") } else { (*word).to_owned() };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A path with digests cut short.
fn shorten(path: &str) -> String {
    let part = |part: &str| match part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => format!("{}...", &part[..10]),
        false => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
