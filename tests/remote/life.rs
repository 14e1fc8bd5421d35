//! Restarts, and what a crash leaves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{none, published, pull_in_place, top};
use testkit::{Client, Daemon, Info, Namespace, Site, Style, names, upper};

/// Everything that clients can see.
fn seen(client: &Client) -> BTreeMap<String, (Info, String)> {
    let mounts = |info: &Info| format!("{:?} {:?}", client.mounts(&info.name).ok(), client.usage(&info.name).unwrap());
    client.list(&[]).unwrap().into_iter().map(|info| (info.name.clone(), (info.clone(), mounts(&info)))).collect()
}

fn mountinfo() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

on_both! {
    fn everything_survives_stops_and_kills(kind) {
        let Some(mut site) = Site::new(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        let files = upper(&client.prepare("k", top(&pulled), &none()).unwrap());
        fs::write(files.join("precious"), "x").unwrap();
        client.prepare("c k", top(&pulled), &none()).unwrap();
        client.commit("c", "c k", &none()).unwrap();
        client.view("v", "c", &none()).unwrap();
        let (before, ids) = (seen(&client), daemon.ids());
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT] {
            let status = daemon.stop(signal);
            assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}: {status}");
            assert_eq!(fs::read_to_string(files.join("precious")).unwrap(), "x");
            daemon.restart();
            let client = daemon.client();
            assert_eq!(seen(&client), before, "{signal}");
            client.cleanup().unwrap();
            assert_eq!(daemon.ids(), ids, "{signal}");
            assert_eq!(Namespace::new(&client, "again", Style::Old).pull(&image), pulled);
        }
        // A start while the repository is away loses nothing either.
        daemon.stop(Signal::SIGKILL);
        site.unmount();
        daemon.restart();
        let client = daemon.client();
        assert_eq!(client.list(&[]).unwrap().len(), before.len());
        client.cleanup().unwrap();
        assert_eq!(daemon.ids(), ids);
        site.remount();
        assert_eq!(seen(&client), before);
    }

    fn kills_in_the_middle_leave_nothing_that_clean_up_does_not_find(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.settings());
        for round in 0..6 {
            site.mock().slow(Duration::from_millis(10));
            std::thread::scope(|scope| {
                for n in 0..3 {
                    let (daemon, image) = (&daemon, &image);
                    let client = daemon.client();
                    scope.spawn(move || {
                        for index in 0..3 {
                            let (key, labels) = (format!("{round} {n} {index}"), image.labels(0, Style::Old));
                            let _ = client.prepare(&key, "", &none());
                            let _ = client.commit(&format!("{key} c"), &key, &none());
                            let _ = client.prepare(&format!("extract-{key} {}", image.ids()[0]), "", &labels);
                            let _ = client.view(&format!("{key} v"), &format!("{key} c"), &none());
                        }
                    });
                }
                testkit::pause(Duration::from_millis(15 * round));
                daemon.signal(Signal::SIGKILL);
            });
            daemon.wait();
            site.mock().slow(Duration::ZERO);
            daemon.restart();
            let client = daemon.client();
            client.cleanup().unwrap();
            let has_directory = |info: &Info| info.kind != 1 || info.parent.is_empty();
            let expected = client.list(&[]).unwrap().iter().filter(|info| has_directory(info)).count();
            assert_eq!(daemon.ids().len(), expected);
            for info in client.list(&["kind==active"]).unwrap() {
                client.mounts(&info.name).unwrap();
            }
            assert!(names(&daemon.root().join("trash")).is_empty());
        }
    }

    fn ids_are_never_used_twice(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.settings());
        let mut highest = 0;
        for round in 0..4 {
            let client = daemon.client();
            client.prepare("k", "", &none()).unwrap();
            let pulled = pull_in_place(&client, &image);
            let ids = daemon.ids();
            assert!(ids[0] > highest, "{ids:?} {highest}");
            highest = ids[ids.len() - 1];
            client.remove("k").unwrap();
            pulled.iter().rev().for_each(|layer| client.remove(&layer.name).unwrap());
            client.cleanup().unwrap();
            assert!(daemon.ids().is_empty());
            let _ = daemon.stop(if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
            daemon.restart();
        }
    }

    fn clean_up_spares_what_is_being_made(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        std::thread::scope(|scope| {
            let making: Vec<_> = (0..3).map(|n| {
                let (daemon, image) = (&daemon, &image);
                scope.spawn(move || {
                    let client = daemon.client();
                    for round in 0..10 {
                        let mut namespace = Namespace::new(&client, &format!("n{n} {round}"), Style::New);
                        let pulled = namespace.pull(image);
                        let key = format!("{n} {round}");
                        let mounts = client.prepare(&key, top(&pulled), &none()).unwrap();
                        assert!(upper(&mounts).is_dir());
                        client.commit(&format!("{key} c"), &key, &none()).unwrap();
                    }
                })
            }).collect();
            let client = daemon.client();
            let mut rounds = 0;
            while making.iter().any(|thread| !thread.is_finished()) {
                client.cleanup().unwrap();
                rounds += 1;
            }
            assert!(rounds > 2);
        });
        let client = daemon.client();
        client.cleanup().unwrap();
        assert_eq!(client.keys().len(), daemon.ids().len());
        for info in client.list(&[]).unwrap() {
            client.view(&format!("v {}", info.name), &info.name, &none()).unwrap();
        }
    }
}

#[test]
fn a_state_directory_that_others_can_enter_is_refused() {
    let Some(site) = Site::new(testkit::Kind::Directory) else { return };
    let mut daemon = Daemon::start(&site.settings());
    daemon.client().committed("c", "");
    daemon.stop(Signal::SIGTERM);
    for directory in [daemon.root(), daemon.snapshots()] {
        for mode in [0o755, 0o711, 0o710, 0o701] {
            fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).unwrap();
            daemon.spawn();
            assert_eq!(daemon.wait().code(), Some(78), "{mode:o}");
            assert!(!daemon.lines(&["chmod 700", directory.to_str().unwrap()]).is_empty());
        }
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
    }
    daemon.restart();
    assert_eq!(daemon.client().keys(), ["c"]);
}

/// The exit status that keeps a service manager from trying again.
const EX_CONFIG: i32 = 78;
const NAME: &str = "a snapshot whose name is found in the file";
/// redb notes at the beginning of its file that it looks at it, also if it refuses it then.
const NOTES: usize = 64;

/// The daemon does not start, and says this and how to go on.
#[track_caller]
fn assert_refused(daemon: &mut Daemon, why: &str) {
    let seen = daemon.log().len();
    daemon.spawn();
    let status = daemon.wait();
    let root = daemon.root().display().to_string();
    let said = daemon.log()[seen..].to_owned();
    assert_eq!(status.code(), Some(EX_CONFIG), "{said}");
    let first_steps =
        format!("(1) stop kubelet, if there is one; (2) `mv --no-target-directory '{root}' '{root}.lost'`");
    assert!(said.lines().any(|line| line.contains(why) && line.contains(&first_steps)), "{said}");
}

#[test]
fn a_lost_or_damaged_store_is_refused_and_nothing_is_deleted() {
    let Some(site) = Site::new(testkit::Kind::Directory) else { return };
    let mut daemon = Daemon::start(&site.settings());
    daemon.client().committed(NAME, "");
    daemon.stop(Signal::SIGTERM);
    let (ids, store) = (daemon.ids(), daemon.root().join("metadata.redb"));
    let whole = fs::read(&store).unwrap();
    fs::remove_file(&store).unwrap();
    assert_refused(&mut daemon, "metadata.redb is missing");
    assert!(!store.exists());

    let mut damaged = vec![("empty".to_owned(), Vec::new()), ("another file".to_owned(), b"not a store".to_vec())];
    for length in [100, 4096, whole.len() / 2, whole.len() - 1] {
        damaged.push((format!("the first {length} bytes"), whole[..length].to_vec()));
    }
    // In all pages that have the record: some are of earlier commits and not in use.
    let records: Vec<usize> =
        (0..whole.len() - NAME.len()).filter(|at| whole[*at..].starts_with(NAME.as_bytes())).collect();
    let mut flipped = whole.clone();
    assert!(!records.is_empty());
    records.iter().for_each(|at| flipped[*at] ^= 1);
    damaged.push(("a flipped bit".to_owned(), flipped));
    for (what, content) in damaged {
        fs::write(&store, &content).unwrap();
        assert_refused(&mut daemon, "metadata.redb cannot be read");
        let left = fs::read(&store).unwrap();
        assert!(left.len() == content.len() && left.get(NOTES..) == content.get(NOTES..), "changed: {what}");
        assert_eq!(daemon.ids(), ids, "{what}");
    }
    fs::write(&store, whole).unwrap();
    daemon.restart();
    assert_eq!(daemon.client().keys(), [NAME]);
    daemon.client().view("v", NAME, &none()).unwrap();
}

#[test]
fn an_older_copy_of_the_store_is_refused_and_nothing_is_deleted() {
    let Some(site) = Site::new(testkit::Kind::Directory) else { return };
    let mut daemon = Daemon::start(&site.settings());
    daemon.client().committed("old", "");
    daemon.stop(Signal::SIGTERM);
    let (store, copy, newest) = (daemon.root().join("metadata.redb"), daemon.path("copy"), daemon.path("newest"));
    fs::copy(&store, &copy).unwrap();
    daemon.restart();
    daemon.client().prepare("new", "old", &none()).unwrap();
    daemon.stop(Signal::SIGTERM);
    let ids = daemon.ids();
    fs::rename(&store, &newest).unwrap();
    fs::rename(&copy, &store).unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(78));
    assert!(!daemon.lines(&["it is an older copy", "Put the newest file back"]).is_empty());
    assert_eq!(daemon.ids(), ids);
    fs::rename(&newest, &store).unwrap();
    daemon.restart();
    daemon.client().cleanup().unwrap();
    assert_eq!(daemon.client().keys(), ["new", "old"]);
    assert_eq!(daemon.ids(), ids);
}

#[test]
fn the_daemon_mounts_nothing() {
    let Some(site) = Site::on_fuse(testkit::Kind::Cvmfs) else { return };
    let image = published(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = pull_in_place(&client, &image);
    client.prepare("k", top(&pulled), &none()).unwrap();
    let own = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap();
    assert!(!own.contains(daemon.root().to_str().unwrap()), "{own}");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID
    assert_eq!((value("CapEff:"), value("CapBnd:")), ("000000000000001b".into(), "000000000000001b".into()));
    assert!(mountinfo() > 0);
    assert!(daemon.is_running());
}
