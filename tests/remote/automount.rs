//! A repository behind an automounter that takes longer than a probe may.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::{none, pull_in_place, top};
use testkit::{Chain, Daemon, Kind, Layer, Namespace, Settings, Site, Style, eventually};

/// The settings of these tests give a probe one second and a mount eight.
const SECONDS: &str = "2.5";

struct Automount {
    child: Child,
    path: PathBuf,
}

impl Automount {
    /// `None` where the kernel has no autofs.
    fn start(site: &Site, source: &str) -> Option<Self> {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap();
        if !known.lines().any(|line| line.ends_with("\tautofs")) {
            testkit::skip::skip("the kernel has no autofs");
            return None;
        }
        let path = site.beside("automounted");
        std::fs::create_dir(&path).unwrap();
        let mut command = Command::new(testkit::programs::helper("automounter"));
        command.arg(&path).arg(site.beside(source)).arg(SECONDS);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{:?}", child.try_wait());
        Some(Self { child, path })
    }

    fn settings(&self) -> Settings {
        let entry = ("main".to_owned(), self.path.clone(), "directory", String::new());
        Settings { repositories: vec![entry], probe: "1s", ..Settings::default() }
    }

    /// As an automounter does when nobody has used it for a while.
    fn expire(&self) {
        umount2(&self.path, MntFlags::empty()).unwrap();
    }
}

impl Drop for Automount {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn every_mount_is_waited_for() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layers = ["a", "b"].map(|name| Layer::new(name, &[(name, name)]));
    layers.iter().for_each(|layer| site.publish(layer));
    let Some(automount) = Automount::start(&site, "backing") else { return };
    let image = Chain::new("i", &[&layers[0], &layers[1]]);
    let daemon = Daemon::start(&automount.settings());
    let pulled = pull_in_place(&daemon.client(), &image);
    // Not only once in a while.
    for round in 0..2 {
        automount.expire();
        // Nor only by one of those who come at the same time.
        std::thread::scope(|scope| {
            for number in 0..3 {
                let (daemon, pulled) = (&daemon, &pulled);
                scope.spawn(move || {
                    daemon.client().prepare(&format!("{round} {number}"), top(pulled), &none()).unwrap()
                });
            }
        });
    }
    let late = Layer::new("late", &[("late", "late")]);
    site.publish(&late);
    automount.expire();
    pull_in_place(&daemon.client(), &Chain::new("late", &[&late]));
}

#[test]
fn a_mount_that_failed_at_the_start_is_waited_for_again() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("a", &[("a", "a")]);
    site.publish(&layer);
    let Some(automount) = Automount::start(&site, "later") else { return };
    let daemon = Daemon::start(&automount.settings());
    // As at the start of a machine, before its network.
    eventually("the first mount fails", || !daemon.lines(&["repository is not mounted", "remedy"]).is_empty());
    std::fs::rename(site.backing(), site.beside("later")).unwrap();
    pull_in_place(&daemon.client(), &Chain::new("i", &[&layer]));
}

#[test]
fn a_mount_that_fails_is_waited_for_once_and_the_next_one_is_used() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("a", &[("a", "a")]);
    site.publish(&layer);
    let Some(automount) = Automount::start(&site, "later") else { return };
    let image = Chain::new("i", &[&layer]);
    let daemon = Daemon::start(&automount.settings());
    let client = daemon.client();
    let mut namespace = Namespace::new(&client, "default", Style::New);
    let pulled = namespace.pull(&image);
    assert!(!pulled[0].in_place, "{pulled:?}");
    let waited = || daemon.lines(&["waiting for the repository's first answer, or for its automount"]).len();
    let before = waited();
    for number in 0..3 {
        let other = Layer::new(&format!("other {number}"), &[("a", "a")]);
        assert!(!namespace.pull(&Chain::new("other", &[&other]))[0].in_place);
    }
    assert_eq!(waited(), before, "a server that is away is not waited for again and again");
    assert!(!daemon.lines(&["layer is downloaded", "there is no such directory"]).is_empty());

    std::fs::rename(site.backing(), site.beside("later")).unwrap();
    let is_used = |attempt: usize| {
        testkit::pause(std::time::Duration::from_millis(500));
        Namespace::new(&client, &format!("n{attempt}"), Style::New).pull(&image)[0].in_place
    };
    assert!((0..60).any(is_used), "the repository is there");
    let late = Layer::new("late", &[("late", "late")]);
    late.publish(&site.beside("later"));
    automount.expire();
    // One has worked since.
    pull_in_place(&client, &Chain::new("late", &[&late]));
}
