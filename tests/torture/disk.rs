//! The disk whose power is cut (`volatile-disk` of the testkit), with a real file system on it.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use testkit::{eventually, programs};

/// A file system of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether the kernel and the tools of this machine have it; the answer says what is missing.
    pub(crate) fn missing(self) -> Option<String> {
        // It lists a module only once it is loaded.
        let _ = Command::new("modprobe").args(["--quiet", self.name()]).stderr(Stdio::null()).status();
        let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !kernel.split_whitespace().any(|name| name == self.name()) {
            return Some(format!("the kernel has no {self}"));
        }
        let made = Command::new(format!("mkfs.{self}")).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        made.is_err().then(|| format!("there is no mkfs.{self}"))
    }

    /// The least that mkfs takes, or enough.
    fn megabytes(self) -> u64 {
        match self {
            Self::Ext4 => 192,
            Self::Xfs => 320,
            Self::Btrfs => 256,
        }
    }

    fn make(self, disk: &Path) {
        let options: &[&str] = match self {
            // Blocks as on a disk of a usual size; nothing that goes on in the background.
            Self::Ext4 => &["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Self::Xfs => &["-q", "-f", "-K"],
            Self::Btrfs => &["-q", "-f", "-K"],
        };
        let output = Command::new(format!("mkfs.{self}")).args(options).arg(disk).output().unwrap();
        assert!(output.status.success(), "mkfs.{self}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a cut left of the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survivors {
    pub(crate) written: u64,
    pub(crate) kept: u64,
    pub(crate) torn: u64,
}

/// A mounted file system on a disk that loses what was not flushed. Needs a mount namespace of its own.
pub(crate) struct Disk {
    kind: Kind,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
    name: String,
}

impl Disk {
    /// A new file system, mounted.
    pub(crate) fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["disks", "mounted"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut process = Command::new(programs::helper("volatile-disk"))
            .arg(directory.path().join("disks"))
            .arg((kind.megabytes() << 20).to_string())
            // Ctrl-C is for the test, whose end it sees.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut disk = Self { kind, process, commands, answers, directory, name: "disk-0".into() };
        assert_eq!(disk.answer(), "ready");
        kind.make(&disk.file());
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("disks").join(&self.name)
    }

    /// From now on nothing that is written or flushed is answered: at once, or when the next flush comes, before it is
    /// carried out.
    pub(crate) fn freeze(&mut self, at_flush: bool) {
        self.command(if at_flush { "freeze-at-flush" } else { "freeze" });
    }

    /// Throws away what is not on the medium, and lets go whoever waits. What is mounted goes on in memory, for as long
    /// as it takes to unmount it.
    pub(crate) fn cut(&mut self, seed: u64) -> Survivors {
        let answer = self.command(&format!("cut {seed}"));
        let [name, written, kept, torn] = answer.split(' ').collect::<Vec<_>>()[..] else { panic!("{answer}") };
        name.clone_into(&mut self.name);
        self.command("thaw");
        let number = |text: &str| text.parse().unwrap();
        Survivors { written: number(written), kept: number(kept), torn: number(torn) }
    }

    /// From now on every write and every flush fails, or none.
    pub(crate) fn fail(&mut self, fails: bool) {
        self.command(if fails { "fail on" } else { "fail off" });
    }

    /// From now on no data can be written that have this word in them.
    pub(crate) fn fail_writes_of(&mut self, word: &str) {
        self.command(&format!("fail {word}"));
    }

    /// Mounts what the cut has left, as the next start of the machine would.
    pub(crate) fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    fn mount(&self) {
        // mount(8) makes the loop device, which goes with the mount.
        let output = Command::new("mount")
            .args(["-t", self.kind.name(), "-o", "loop"])
            .args([self.file(), self.path()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}{}", self.kind, String::from_utf8_lossy(&output.stderr), kernel_log());
    }

    fn unmount(&self) {
        eventually("the file system is unmounted", || umount2(&self.path(), MntFlags::empty()).is_ok());
    }

    fn command(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the disk has ended");
        line.trim_end().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = writeln!(self.commands, "fail off");
        let _ = writeln!(self.commands, "thaw");
        if umount2(&self.path(), MntFlags::empty()).is_err() {
            let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        }
        let _ = writeln!(self.commands, "stop");
        let _ = self.process.wait();
    }
}

/// What the kernel has said last, if it is to be had.
fn kernel_log() -> String {
    let output = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
