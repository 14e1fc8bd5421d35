//! A repository that does not answer blocks nobody, and requests that need none ask none.

use std::time::{Duration, Instant};

use crate::{assert_unavailable, none, published, pull_in_place, top};
use testkit::{Chain, Client, Daemon, Layer, Namespace, Site, Style, labels};

/// Less than the time limit for a repository, much more than a request takes that asks none.
const AT_ONCE: Duration = Duration::from_millis(800);

#[track_caller]
fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = call();
    assert!(begin.elapsed() < AT_ONCE, "{what}: {:?}", begin.elapsed());
    result
}

/// All that needs no repository, on a chain that lies in one.
fn everything_else(client: &Client, round: usize, remote: &str) {
    let name = |what: &str| format!("{round} {what}");
    at_once("Stat", || client.stat(remote).unwrap());
    at_once("List", || client.list(&[]).unwrap());
    at_once("List with a filter", || client.list(&[&format!("parent==\"{remote}\"")]).unwrap());
    at_once("Usage", || client.usage(remote).unwrap());
    at_once("Update", || client.update(remote, &labels(&[("r", &round.to_string())]), &["labels.r"]).unwrap());
    at_once("Prepare", || client.prepare(&name("k"), "", &none()).unwrap());
    at_once("Mounts", || client.mounts(&name("k")).unwrap());
    at_once("Commit", || client.commit(&name("c"), &name("k"), &none()).unwrap());
    at_once("View", || client.view(&name("v"), &name("c"), &none()).unwrap());
    at_once("Remove", || client.remove(&name("v")).unwrap());
    at_once("Cleanup", || client.cleanup().unwrap());
}

on_both! {
    fn other_requests_are_immediate_and_so_are_answers_after_the_first(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.short_limits());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        client.prepare("on top", top(&pulled), &none()).unwrap();
        client.prepare("to remove", top(&pulled), &none()).unwrap();
        everything_else(&client, 0, top(&pulled));
        site.mock().hang();
        std::thread::scope(|scope| {
            // Some are waiting for the repository while others are answered.
            let wait = |key: &'static str| {
                let (daemon, pulled, image, site) = (&daemon, &pulled, &image, &site);
                scope.spawn(move || {
                    let answer = daemon.client().prepare(key, top(pulled), &none());
                    assert_unavailable(answer, &image.layers, site, "does not answer");
                })
            };
            let waiting = [wait("x"), wait("y"), wait("z")];
            everything_else(&client, 1, top(&pulled));
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
        });
        at_once("Commit on top", || client.commit("committed on top", "on top", &none()).unwrap());
        at_once("Remove on top", || client.remove("to remove").unwrap());
        for round in 2..4 {
            let answer = at_once("Prepare of a chain in it", || client.prepare("x", top(&pulled), &none()));
            assert_unavailable(answer, &image.layers, &site, "does not answer");
            let other = Chain::new("other", &[&Layer::new("unknown", &[])]);
            at_once("a pull", || Namespace::new(&client, &format!("r{round}"), Style::New).in_place(&other));
            everything_else(&client, round, top(&pulled));
        }
        site.mock().unhang();
        testkit::eventually("it recovers", || client.prepare("x", top(&pulled), &none()).is_ok());
    }

    fn requests_that_need_no_repository_ask_none(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        client.prepare("k", top(&pulled), &none()).unwrap();
        client.prepare("k2", top(&pulled), &none()).unwrap();
        client.view("v", top(&pulled), &none()).unwrap();
        // What was begun in the background for the pull ends first.
        let mut asked = None;
        testkit::eventually("nothing is asked any more", || {
            testkit::pause(Duration::from_millis(500));
            let now = site.mock().requests();
            asked.replace(now) == Some(now)
        });
        site.mock().reset_stats();
        for layer in &pulled {
            client.stat(&layer.name).unwrap();
            client.usage(&layer.name).unwrap();
            client.update(&layer.name, &labels(&[("x", "y")]), &["labels.x"]).unwrap();
        }
        client.usage("k").unwrap();
        client.list(&[]).unwrap();
        client.list(&["kind==committed"]).unwrap();
        client.commit("c", "k", &none()).unwrap();
        for key in ["v", "k2", "c", &pulled[2].name, &pulled[1].name, &pulled[0].name] {
            client.remove(key).unwrap();
        }
        client.cleanup().unwrap();
        assert_eq!(site.mock().stats()["total"], 0, "{}", site.mock().stats());
        assert!(daemon.ids().is_empty());
    }

    fn an_idle_daemon_keeps_no_repository_busy(kind) {
        let Some(mut site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        for round in 0..5 {
            let pulled = Namespace::new(&client, &format!("n{round}"), Style::New).pull(&image);
            client.prepare(&format!("k{round}"), top(&pulled), &none()).unwrap();
            // The layers above are looked at in the background.
            testkit::eventually("it is let go", || nix::mount::umount(site.path()).is_ok());
            let mock = site.mock.as_mut().unwrap();
            mock.kill();
            mock.remount();
        }
    }

    fn it_recovers_also_if_the_hung_client_lives_on(kind) {
        let Some(mut site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let late = Layer::new("late", &[("d/e/f", "x")]);
        site.publish(&late);
        let late = Chain::new("late", &[&late]);
        let daemon = Daemon::start(&site.short_limits());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        client.prepare("k", top(&pulled), &none()).unwrap();
        // A walk is under way when it hangs, too.
        site.mock().slow(Duration::from_millis(40));
        site.mock().reset_stats();
        let key = testkit::extract_key("default", 9, &late.ids()[0]);
        client.prepare_and_leave(&key, "", &late.labels(0, Style::New), || {
            testkit::eventually("it walks", || site.mock().requests() > 4);
            site.mock().hang();
        });
        assert_unavailable(client.mounts("k"), &image.layers, &site, "does not answer");
        // As the message advises; the old client stays, and answers nothing.
        nix::mount::umount2(site.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        let old = site.mock.take();
        let options = testkit::Options::default();
        site.mock = Some(testkit::Mock::start(site.backing(), &site.beside("repository"), options));
        testkit::eventually("it recovers", || client.mounts("k").is_ok());
        testkit::eventually("walks recover", || Namespace::new(&client, "n", Style::New).in_place(&late) == [true]);
        let mock = site.mock.take();
        drop(old);
        drop(mock);
    }

    fn a_remount_while_somebody_waits_is_noticed(kind) {
        let Some(mut site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let mut settings = site.short_limits();
        settings.probe = "3s";
        let daemon = Daemon::start(&settings);
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        client.prepare("k", top(&pulled), &none()).unwrap();
        site.mock().hang();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| daemon.client().mounts("k"));
            testkit::pause(Duration::from_millis(1200));
            nix::mount::umount2(site.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
            let old = site.mock.take();
            let options = testkit::Options::default();
            site.mock = Some(testkit::Mock::start(site.backing(), &site.beside("repository"), options));
            // Right away, unless this machine took longer than the step limit of the one that waits.
            let _ = waiting.join().unwrap();
            testkit::eventually("it recovers", || client.mounts("k").is_ok());
            let mock = site.mock.take();
            drop(old);
            drop(mock);
        });
    }

    fn one_that_is_slow_is_not_taken_for_a_hung_one(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let layers: Vec<Layer> = (0..25).map(|n| Layer::new(&format!("l{n}"), &[("f", "f")])).collect();
        layers.iter().for_each(|layer| site.publish(layer));
        let image = Chain::new("i", &layers.iter().collect::<Vec<_>>());
        let mut settings = site.short_limits();
        settings.markers = "3s";
        let daemon = Daemon::start(&settings);
        let client = daemon.client();
        pull_in_place(&client, &Chain::new("first", &[&layers[24]]));
        // As with a cold cache. What is known of the layers above takes longer than there is time for this one.
        site.mock().slow(Duration::from_millis(40));
        let mut parent = String::new();
        for (index, target) in image.ids().iter().take(6).enumerate() {
            let key = testkit::extract_key("default", index as u64, target);
            let answer = client.prepare(&key, &parent, &image.labels(index, Style::New)).unwrap_err();
            assert_eq!(answer.code(), tonic::Code::AlreadyExists, "{index}: {answer:?}: {}", daemon.log());
            parent.clone_from(&client.list(&[&testkit::target_filter(target, &parent)]).unwrap()[0].name);
        }
        site.mock().slow(Duration::ZERO);
        assert!(daemon.lines(&["does not answer"]).is_empty(), "{}", daemon.log());
    }

    fn hung_from_the_start(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        site.mock().hang();
        let daemon = Daemon::start(&site.short_limits());
        let client = daemon.client();
        at_once("List", || client.list(&[]).unwrap());
        let mut namespace = Namespace::new(&client, "default", Style::New);
        assert_eq!(namespace.in_place(&image), [false; 3]);
        assert!(!daemon.lines(&["layer is downloaded", "does not answer"]).is_empty());
        site.mock().unhang();
        testkit::eventually("it recovers", || {
            Namespace::new(&client, "later", Style::New).in_place(&image) == [true; 3]
        });
    }

    fn a_stop_does_not_wait_for_it(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.short_limits());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        site.mock().hang();
        client.prepare("x", top(&pulled), &none()).unwrap_err();
        let begin = Instant::now();
        let status = daemon.stop(nix::sys::signal::Signal::SIGTERM);
        assert!(status.success(), "{status}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    }
}
