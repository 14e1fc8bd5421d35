//! A folder for one test, and the end of all that the test started in it.

mod leftovers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Process, Processes, pid};
use crate::wait::{LIMIT, wait_until};

use leftovers::Leftovers;
pub use leftovers::RUNC;

/// A temporary folder with a short path. Dropped, it ends the processes of the test, unmounts what is mounted in it,
/// removes what containers left elsewhere, and fails the test if it cannot.
pub struct Sandbox {
    dir: PathBuf,
    processes: Processes,
}

impl Sandbox {
    /// Makes the folder.
    pub fn new() -> Self {
        // Not below TMPDIR: sockets in it must have paths of less than 108 bytes.
        let dir = tempfile::Builder::new().prefix("cs-").tempdir_in("/tmp").expect("a temporary folder");
        Self { dir: dir.keep(), processes: Processes::default() }
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

    pub(crate) fn processes(&self) -> Processes {
        self.processes.clone()
    }

    /// Starts a process that writes into the file `NAME.log`, after what is in there already.
    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        let log = self.join(format!("{name}.log"));
        // So that Ctrl-C reaches the test only, which would leave all else behind if they died with it.
        command.process_group(0);
        let process = Process::spawn(&log, command);
        self.processes.add(&process);
        process
    }

    /// Kills all processes whose command line names this folder of the sandbox, with those that they started, and unmounts
    /// what is mounted in it.
    pub fn kill_all_of(&self, dir: &Path) {
        assert!(dir.starts_with(&self.dir) && dir != self.dir, "{}", dir.display());
        assert!(wait_until(LIMIT, || end_processes(dir)), "still running: {:?}", processes_of(dir));
        assert_eq!(unmount_below(dir), [""; 0]);
    }

    /// Prints the end of what each process wrote.
    pub fn print_logs(&self) {
        for process in self.processes.all() {
            let text = process.log_text();
            let tail = text.char_indices().rev().nth(6000).map_or(0, |(index, _)| index);
            eprintln!("--- the end of {}\n{}", process.log().display(), &text[tail..]);
        }
    }

    /// Ends and removes everything, as a drop does, for a sandbox that is not dropped.
    pub fn clean(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        // The last one first: containerd may need the snapshotter to its end.
        for process in self.processes.all().iter().rev() {
            if process.stop().is_none() {
                problems.push(format!("{} ignored SIGTERM; its log:\n{}", process.log().display(), process.log_text()));
            }
        }
        let leftovers = Leftovers::find(&self.dir);
        if !wait_until(LIMIT, || end_processes(&self.dir)) {
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

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
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
