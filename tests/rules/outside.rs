//! Nothing outside of the state directory is ever made, followed or removed, whatever clients, layers and containers do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;

use testkit::{
    Chain, Client, Daemon, Kind, Labels, Layer, Mounted, Namespace, Site, Style, eventually, extract_key, labels, upper,
};

/// Everything below a directory, with all that tells whether somebody touched it.
fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        let line = format!("{} {:o} {} {mtime:?} {ctime:?} {content:?}", meta.ino(), meta.mode(), meta.nlink());
        (entry.into_path(), line)
    });
    entries.collect()
}

/// strace of a daemon, until it is dropped.
struct Trace {
    child: Child,
    log: PathBuf,
}

impl Trace {
    /// `None` where strace is not installed, or not allowed.
    fn start(daemon: &Daemon) -> Option<Self> {
        let log = daemon.path("strace");
        let calls = "trace=openat,openat2,open,creat,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,renameat2,\
                     symlink,symlinkat,link,linkat,mknod,mknodat,chown,lchown,fchownat,chmod,fchmodat,?fchmodat2,\
                     truncate,setxattr,lsetxattr,removexattr,utimensat";
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "4096", "-e", calls, "-o"]).arg(&log);
        let child = command.args(["-p", &daemon.pid().to_string()]).stderr(Stdio::null()).spawn().ok()?;
        let mut trace = Self { child, log };
        let status = PathBuf::from(format!("/proc/{}/status", daemon.pid()));
        eventually("strace is attached", || {
            let traced = fs::read_to_string(&status).unwrap();
            !traced.contains("TracerPid:\t0\n") || trace.child.try_wait().unwrap().is_some()
        });
        trace.child.try_wait().unwrap().is_none().then_some(trace)
    }

    /// Ends it, and gives the paths that the daemon named in calls that succeeded, and those that it came to.
    fn paths(mut self) -> Vec<(String, PathBuf)> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        let calls = Calls::new();
        log.lines().filter(|line| !line.contains(" = -1 ")).flat_map(|line| calls.paths(line)).collect()
    }
}

/// Reads what strace writes.
struct Calls {
    name: Regex,
    /// A directory's descriptor, if there is one, and a string.
    argument: Regex,
    /// A descriptor that a call returned, and where it leads.
    result: Regex,
}

impl Calls {
    fn new() -> Self {
        let argument = r#"(?:(?:AT_FDCWD(?:<[^>]*>)?|\d+<([^>]*)>), )?"((?:[^"\\]|\\.)*)""#;
        Self {
            name: Regex::new(r"(\w+)\(").unwrap(),
            argument: Regex::new(argument).unwrap(),
            result: Regex::new(r"\) = \d+<(/[^>]*)>$").unwrap(),
        }
    }

    fn paths(&self, line: &str) -> Vec<(String, PathBuf)> {
        let Some(name) = self.name.captures(line) else { return Vec::new() };
        // What a link leads to is no path that the call follows; behind the first path of most others are names and values.
        let (skipped, taken) = match &name[1] {
            call if call.starts_with("symlink") => (1, 1),
            call if call.starts_with("rename") || call.starts_with("link") => (0, 2),
            _ => (0, 1),
        };
        let named = self.argument.captures_iter(line).skip(skipped).take(taken).map(|found| {
            let directory = found.get(1).map_or("/", |directory| directory.as_str());
            normal(&Path::new(directory).join(&found[2]))
        });
        let came_to = self.result.captures(line).map(|found| PathBuf::from(&found[1]));
        named.chain(came_to).map(|path| (line.to_owned(), path)).collect()
    }
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn paths_are_read_from_a_trace() {
    let calls = Calls::new();
    let paths = |line: &str| calls.paths(line).into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    assert_eq!(paths(r#"7 openat(AT_FDCWD</a>, "/r/../x", O_RDONLY) = 3</y>"#), ["/x", "/y"].map(PathBuf::from));
    assert_eq!(paths(r#"7 renameat2(3</r>, "a", 4</s>, "b\"", 0) = 0"#), ["/r/a", "/s/b\\\""].map(PathBuf::from));
    assert_eq!(paths(r#"7 symlinkat("/outside", 3</r>, "a") = 0"#), ["/r/a"].map(PathBuf::from));
    assert_eq!(paths(r#"7 setxattr("/r", "user.x", "y", 1, 0) = 0"#), ["/r"].map(PathBuf::from));
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys and labels that name paths.
fn name_paths(client: &Client, outside: &Path) {
    let outside = outside.to_str().unwrap();
    for (number, path) in ["../../outside", "../../../..", outside, ".", "trash/1", "1/fs"].into_iter().enumerate() {
        let none = Labels::new();
        client.prepare(path, "", &none).unwrap();
        client.commit(&format!("{path}/committed"), path, &none).unwrap();
        client.view(path, &format!("{path}/committed"), &none).unwrap();
        client.remove(path).unwrap();
        client.remove(&format!("{path}/committed")).unwrap();
        let target = format!("sha256:{}", "1".repeat(64));
        let digest = format!("sha256:{path}");
        let hostile = labels(&[
            ("containerd.io/snapshot.ref", &target),
            ("containerd.io/snapshot/cri.layer-digest", &digest),
            ("containerd.io/snapshot/cri.image-layers", &format!("{digest},{path}")),
            ("containerd.io/snapshot/cri.image-ref", path),
        ]);
        let key = extract_key("default", number as u64, &target);
        client.prepare(&key, "", &hostile).unwrap();
        client.remove(&key).unwrap();
    }
}

/// Layers that lead out of the repository: in what they hold, as a whole, and in what is recorded of them.
fn lead_out(site: &Site, client: &Client, outside: &Path) {
    let hostile = Layer::new("links", &[("d/.wh.a", ""), (".wh.out", ""), ("e/.wh..wh..opq", ""), ("e/x", "")]);
    site.publish(&hostile);
    let root = site.backing().join(hostile.path());
    symlink(outside, root.join("out")).unwrap();
    symlink(outside.join("file"), root.join("d/a")).unwrap();
    symlink(outside, root.join("d/.wh.directory")).unwrap();
    symlink("../../../../../../../../../outside", root.join("e/up")).unwrap();
    let image = Chain::new("links", &[&Layer::new("base", &[("d/a", ""), ("out", "")]), &hostile]);
    site.publish(&image.layers[0]);
    let pulled = Namespace::new(client, "links", Style::New).pull(&image);
    assert!(pulled.iter().all(|layer| layer.in_place));
    client.view("links-view", &pulled[1].name, &Labels::new()).unwrap();

    for (name, what) in [("whole", "layerfs"), ("record", ".metadata")] {
        let layer = Layer::new(name, &[("f", "")]);
        site.publish(&layer);
        let place = site.holder(&layer).join(what);
        fs::remove_dir_all(&place).unwrap();
        symlink(outside.join("directory"), &place).unwrap();
        // Whatever the answer is.
        let _ = Namespace::new(client, name, Style::New).in_place(&Chain::new(name, &[&layer]));
    }
}

/// A container that replaces directories by links, and what becomes of that at Commit, Usage, Remove and clean-up.
fn plant_links(daemon: &Daemon, client: &Client, outside: &Path) {
    let none = Labels::new();
    client.committed("base", "");
    let mounts = client.prepare("container", "base", &none).unwrap();
    {
        let mounted = Mounted::new(&mounts);
        for path in ["a", "b/c"] {
            fs::create_dir_all(mounted.path().join(path)).unwrap();
        }
        fs::remove_dir(mounted.path().join("a")).unwrap();
        symlink(outside, mounted.path().join("a")).unwrap();
        symlink(outside.join("file"), mounted.path().join("b/c/file")).unwrap();
        symlink("/", mounted.path().join("b/root")).unwrap();
        let deep = mounted.path().join("d/".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        symlink(outside, deep.join("out")).unwrap();
    }
    client.usage("container").unwrap();
    let top = upper(&client.mounts("container").unwrap());
    let usages = exchange_while(&top, outside, || (0..100).map(|_| client.usage("container")).collect::<Vec<_>>());
    assert!(usages.iter().all(Result::is_ok), "{usages:?}");
    client.commit("committed", "container", &none).unwrap();
    client.remove("committed").unwrap();

    // Something is mounted in the upper directory when it is removed.
    let place = upper(&client.prepare("mounted", "base", &none).unwrap()).join("mountpoint");
    fs::create_dir(&place).unwrap();
    let bind = MsFlags::MS_BIND;
    mount(Some(outside), &place, None::<&str>, bind, None::<&str>).unwrap();
    client.usage("mounted").unwrap();
    client.remove("mounted").unwrap();
    client.cleanup().unwrap();
    let kept = daemon.root().join("trash");
    let left = walkdir::WalkDir::new(&kept).into_iter().flatten().find(|entry| entry.file_name() == "mountpoint");
    let left = left.expect("what is mounted is not deleted").into_path();
    umount2(&left, MntFlags::MNT_DETACH).unwrap();

    // In the trash of an earlier life.
    fs::create_dir(kept.join("999999")).unwrap();
    symlink(outside, kept.join("999999/fs")).unwrap();
    symlink(outside, kept.join("out")).unwrap();
    client.cleanup().unwrap();
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0, "{}", daemon.log());
}

/// As a container that exchanges a directory and a link, over and over.
fn exchange_while<T>(directory: &Path, outside: &Path, work: impl FnOnce() -> T) -> T {
    let (one, other) = (directory.join("one"), directory.join("other"));
    fs::create_dir(&one).unwrap();
    symlink(outside, &other).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn nothing_outside_is_made_followed_or_removed() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let mut settings = site.settings();
    settings.repositories[0].3 = "verify = 'off'".into();
    let daemon = Daemon::start(&settings);
    let client = daemon.client();
    let outside = daemon.path("outside");
    fs::create_dir_all(outside.join("directory/deeper")).unwrap();
    for file in ["file", "directory/file", "directory/deeper/f"] {
        fs::write(outside.join(file), file).unwrap();
    }
    let before = look(&outside);
    let trace = Trace::start(&daemon);
    if trace.is_none() {
        testkit::skip::lacks("strace does not work here: only what is left is compared");
    }

    name_paths(&client, &outside);
    lead_out(&site, &client, &outside);
    plant_links(&daemon, &client, &outside);

    if let Some(trace) = trace {
        let paths = trace.paths();
        assert!(paths.len() > 100, "{} calls", paths.len());
        let run = daemon.socket().parent().unwrap().to_owned();
        let allowed = [daemon.root(), site.path().to_owned(), run, daemon.config(), "/proc".into(), "/sys".into()];
        for (line, path) in &paths {
            let inside = allowed.iter().any(|allowed| path.starts_with(allowed));
            let parent_of_repository = site.path().starts_with(path) && line.contains("O_PATH");
            assert!(inside || parent_of_repository, "{line}");
        }
        println!("{} paths", paths.len());
    }
    assert_eq!(look(&outside), before);
    assert!(daemon.is_running());
}
