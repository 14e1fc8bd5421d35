//! A folder for one test, and the end of all that the test started in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Where shims keep the state of runc, by namespace and ID.
pub const RUNC: &str = "/run/containerd/runc";
/// Where clients have the pipes of their containers.
const PIPES: &str = "/run/containerd/fifo";
const POLL: Duration = Duration::from_millis(10);
/// How long a program may take to end, also on a machine busy with other tests.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A temporary folder with a short path. Dropped, it ends the processes of the test, unmounts what is mounted in it,
/// removes what containers left elsewhere, and fails the test if it cannot.
pub struct Sandbox {
    dir: PathBuf,
    processes: Mutex<Vec<Process>>,
}

/// A process of a [`Sandbox`].
#[derive(Clone)]
pub struct Process {
    child: Arc<Mutex<Child>>,
    pid: Pid,
    log: PathBuf,
}

impl Sandbox {
    /// Makes the folder.
    pub fn new() -> Self {
        // Not below TMPDIR: sockets in it must have paths of less than 108 bytes.
        let dir = tempfile::Builder::new().prefix("cs-").tempdir_in("/tmp").expect("a temporary folder");
        Self { dir: dir.keep(), processes: Mutex::default() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A path in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a folder in the folder, with those above it.
    pub fn mkdir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        path
    }

    /// A namespace of containerd that no other test uses; the cgroup of its containers has this name as well.
    pub fn namespace(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect()
    }

    /// Starts a process that writes into the file `NAME.log`, after what is in there already.
    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        let log = self.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("dup")).stderr(file);
        // So that Ctrl-C reaches the test only, which would leave all else behind if they died with it.
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}"));
        let pid = pid(child.id());
        let process = Process { child: Arc::new(Mutex::new(child)), pid, log };
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process.clone());
        process
    }

    /// Kills all processes whose command line names this folder of the sandbox, with those that they started, and unmounts
    /// what is mounted in it.
    pub fn kill_all_of(&self, dir: &Path) {
        assert!(dir.starts_with(&self.dir) && dir != self.dir, "{}", dir.display());
        assert!(wait_until(STOP_LIMIT, || end_processes(dir)), "still running: {:?}", processes_of(dir));
        assert_eq!(unmount_below(dir), [""; 0]);
    }

    /// Prints the end of what each process wrote.
    pub fn print_logs(&self) {
        for process in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let text = process.log_text();
            let tail = text.char_indices().rev().nth(6000).map_or(0, |(index, _)| index);
            eprintln!("--- the end of {}\n{}", process.log.display(), &text[tail..]);
        }
    }

    /// Ends and removes everything, as a drop does, for a sandbox that is not dropped.
    pub fn clean(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        // The last one first: containerd may need the snapshotter to its end.
        for process in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter().rev() {
            if process.stop().is_none() {
                problems.push(format!("{} ignored SIGTERM; its log:\n{}", process.log.display(), process.log_text()));
            }
        }
        let leftovers = Leftovers::find(&self.dir);
        if !wait_until(STOP_LIMIT, || end_processes(&self.dir)) {
            problems.push(format!("still running: {:?}", processes_of(&self.dir)));
        }
        problems.extend(unmount_below(&self.dir));
        leftovers.remove(&self.namespace());
        if let Err(err) = fs::remove_dir_all(&self.dir) {
            problems.push(format!("{}: {err}", self.dir.display()));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            self.print_logs();
        }
        match self.clean() {
            Ok(()) => {}
            Err(problems) if failed => eprintln!("the test left something behind: {problems}"),
            Err(problems) => panic!("the test left something behind: {problems}"),
        }
    }
}

impl Process {
    /// The process ID.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The file with what it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it printed so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, unless it still runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("wait for a child")
    }

    /// Sends a signal, unless it has ended already.
    pub fn signal(&self, signal: Signal) {
        // While we have not waited for it, its ID cannot have become another's.
        if self.ended().is_none() {
            kill(self.pid, signal).expect("signal a child");
        }
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        wait_until(limit, || self.ended().is_some());
        self.ended()
    }

    /// Ends it with SIGTERM; if that does not help with SIGKILL, and returns none.
    pub fn stop(&self) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        // A stopped process takes the signal only when it goes on.
        self.signal(Signal::SIGCONT);
        let status = self.wait(STOP_LIMIT);
        if status.is_none() {
            self.signal(Signal::SIGKILL);
            self.wait(STOP_LIMIT);
        }
        status
    }

    /// Waits for something that this process does, and panics with its log if it ends before or takes too long.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
        let in_time = wait_until(limit, || done() || self.ended().is_some());
        assert!(in_time && self.ended().is_none(), "{what}: {:?}; the log:\n{}", self.ended(), self.log_text());
    }
}

/// Looks again and again; tells whether it was done within the limit.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        sleep(POLL);
    }
    true
}

/// The mount points below a folder, the last mounted first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    // Our own paths have nothing in them that the kernel would write as an escape.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points = points.filter(|point| point.starts_with(dir)).collect::<Vec<_>>();
    points.reverse();
    points
}

fn unmount_below(dir: &Path) -> Vec<String> {
    // What is stacked or shared may take more than one round.
    for _ in 0..3 {
        for point in mounts_below(dir) {
            if umount2(&point, MntFlags::UMOUNT_NOFOLLOW).is_err() {
                // Where this fails too, the check below finds it.
                let _ = umount2(&point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
            }
        }
    }
    mounts_below(dir).iter().map(|point| format!("still mounted: {}", point.display())).collect()
}

/// The processes whose command line names the folder (shims, loggers), and all that they started (containers).
fn processes_of(dir: &Path) -> Vec<Pid> {
    let dir = dir.to_string_lossy();
    let mut parents: BTreeMap<u32, u32> = BTreeMap::new();
    let mut found: Vec<u32> = Vec::new();
    for id in
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        // A process that has gone in between.
        let (Ok(line), Ok(stat)) =
            (fs::read(format!("/proc/{id}/cmdline")), fs::read_to_string(format!("/proc/{id}/stat")))
        else {
            continue;
        };
        // The name in brackets may have spaces and brackets in it: then state and parent follow.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
        if state == Some("Z") {
            continue;
        }
        parents.insert(id, parent.unwrap_or(0));
        if id != std::process::id() && String::from_utf8_lossy(&line).contains(&*dir) {
            found.push(id);
        }
    }
    let mut next = 0;
    while let Some(&one) = found.get(next) {
        let children = parents.iter().filter(|(id, parent)| **parent == one && !found.contains(id));
        let children = children.map(|(id, _)| *id).collect::<Vec<u32>>();
        found.extend(children);
        next += 1;
    }
    found.into_iter().map(pid).collect()
}

fn end_processes(dir: &Path) -> bool {
    let found = processes_of(dir);
    // The containers first, as those of a shim that is gone have no tie to this folder any more.
    for pid in found.iter().rev() {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    found.is_empty()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().expect("process IDs are at most 2^22"))
}

/// What containers that were killed leave outside of the folder: state of runc, sockets of shims, named pipes, cgroups.
#[derive(Default)]
struct Leftovers {
    /// The namespace and the ID of each task.
    tasks: Vec<(String, String)>,
    sockets: Vec<PathBuf>,
    pipes: Vec<PathBuf>,
}

impl Leftovers {
    fn find(dir: &Path) -> Self {
        let socket = regex::Regex::new("/run/containerd/s/[0-9a-f]{64}").expect("a constant");
        let mut found = Self { pipes: pipes(dir), ..Self::default() };
        for state in subdirs(dir) {
            for namespace in subdirs(&state.join("state/io.containerd.runtime.v2.task")) {
                for task in subdirs(&namespace) {
                    for file in ["address", "bootstrap.json"] {
                        let text = fs::read_to_string(task.join(file)).unwrap_or_default();
                        found.sockets.extend(socket.find_iter(&text).map(|path| path.as_str().into()));
                    }
                    found.tasks.push((name_of(&namespace), name_of(&task)));
                }
            }
        }
        found
    }

    /// Most of these are gone already, in good order: only what is there can be removed.
    fn remove(&self, cgroup: &str) {
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
        for hierarchy in subdirs(Path::new(CGROUPS)).into_iter().chain([CGROUPS.into()]) {
            for (_, task) in &self.tasks {
                wait_until(Duration::from_secs(2), || gone(&hierarchy.join(cgroup).join(task)));
            }
            remove_cgroups(&hierarchy.join(cgroup));
        }
        for (namespace, task) in &self.tasks {
            let _ = fs::remove_dir_all(Path::new(RUNC).join(namespace).join(task));
        }
        // Tests that need another namespace put something behind the name of their first.
        for namespace in subdirs(Path::new(RUNC)).iter().filter(|dir| name_of(dir).starts_with(cgroup)) {
            let _ = fs::remove_dir(namespace);
        }
        for pipes in &self.pipes {
            let _ = fs::remove_dir_all(pipes);
        }
    }
}

/// The pipes of this sandbox's containers. nerdctl leaves those of `run --rm` behind, when nothing but containerd's log
/// knows the container any more.
fn pipes(dir: &Path) -> Vec<PathBuf> {
    let log = fs::read_to_string(dir.join("containerd.log")).unwrap_or_default();
    let ours = |pipes: &PathBuf| {
        let names = fs::read_dir(pipes).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| {
            let id = name.to_str().and_then(|name| name.strip_suffix("-stdout"));
            id.is_some_and(|id| log.contains(id))
        })
    };
    subdirs(Path::new(PIPES)).into_iter().filter(ours).collect()
}

/// Removes a cgroup and those in it, which kubelet makes for its pods.
fn remove_cgroups(cgroup: &Path) {
    for inner in subdirs(cgroup) {
        remove_cgroups(&inner);
    }
    wait_until(Duration::from_secs(2), || gone(cgroup));
}

/// Removes a cgroup; the kernel may need a moment after the end of its last process.
fn gone(cgroup: &Path) -> bool {
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
