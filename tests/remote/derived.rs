//! What can be derived is made again; what cannot is never made up.

use std::fs;

use containerd_snapshots::tonic::Code;

use crate::{none, published, pull_in_place, top};
use testkit::{Chain, Daemon, Layer, Mounted, Site, lowers, option, upper};

on_both! {
    fn links_covers_seals_and_erases_are_made_again(kind) {
        let Some(site) = Site::new(kind) else { return };
        let low = Layer::new("low", &[("d/old", "x"), ("e/f", "y"), ("gone", "z")]);
        let high = Layer::new("high", &[("d/.wh..wh..opq", ""), ("d/new", "n"), (".wh.gone", ""), ("e/.wh.f", "")]);
        site.publish(&low);
        site.publish(&high);
        let mut daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &Chain::new("i", &[&low, &high]));
        let mounts = client.prepare("k", top(&pulled), &none()).unwrap();
        let expected = ["d/", "d/new", "e/"];
        assert_eq!(Mounted::new(&mounts).tree(), expected);
        let lowers = lowers(&mounts);
        let names: Vec<_> = lowers.iter().map(|lower| lower.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["c", "fs", "s", "e", "fs"]);
        for lower in &lowers {
            if lower.is_symlink() { fs::remove_file(lower).unwrap() } else { fs::remove_dir_all(lower).unwrap() }
            assert_eq!(client.mounts("k").unwrap(), mounts);
            assert_eq!(Mounted::new(&mounts).tree(), expected, "after the loss of {}", lower.display());
        }
        for lower in &lowers {
            let _ = fs::remove_dir_all(lower.parent().unwrap());
        }
        daemon.restart();
        let client = daemon.client();
        assert_eq!(client.mounts("k").unwrap(), mounts);
        assert_eq!(Mounted::new(&mounts).tree(), expected, "after the loss of everything");
        // One that leads elsewhere.
        let link = lowers.last().unwrap();
        fs::remove_file(link).unwrap();
        std::os::unix::fs::symlink("/etc", link).unwrap();
        client.view("v", top(&pulled), &none()).unwrap();
        assert_eq!(fs::read_link(link).unwrap(), site.path().join(low.path()));
        client.cleanup().unwrap();
    }

    fn lost_files_of_a_local_snapshot_are_never_made_up(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        let base = upper(&client.prepare("base k", top(&pulled), &none()).unwrap());
        client.commit("base", "base k", &none()).unwrap();
        let active = upper(&client.prepare("k", "base", &none()).unwrap());
        client.view("v", "base", &none()).unwrap();
        let alone = upper(&client.prepare("alone", "", &none()).unwrap());
        fs::remove_dir_all(&alone).unwrap();
        fs::remove_dir_all(&active).unwrap();
        for round in 0..2 {
            let client = daemon.client();
            for key in ["alone", "k"] {
                assert_eq!(client.mounts(key).unwrap_err().code(), Code::DataLoss, "{key}");
                assert_eq!(client.commit("new", key, &none()).unwrap_err().code(), Code::DataLoss, "{key}");
                assert_eq!(client.usage(key).unwrap_err().code(), Code::DataLoss, "{key}");
            }
            assert!(!alone.exists() && !active.exists());
            client.cleanup().unwrap();
            client.mounts("v").unwrap();
            if round == 0 {
                daemon.restart();
            }
        }
        let client = daemon.client();
        fs::remove_dir_all(base.parent().unwrap()).unwrap();
        fs::write(base.parent().unwrap(), "a file").unwrap();
        for status in [
            client.mounts("v").unwrap_err(),
            client.view("v2", "base", &none()).unwrap_err(),
            client.prepare("k2", "base", &none()).unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::DataLoss);
            assert!(status.message().contains(base.to_str().unwrap()), "{status}");
        }
        // Removing what is lost works.
        for key in ["v", "k", "alone", "base"] {
            client.remove(key).unwrap();
        }
    }

    fn a_lost_work_directory_is_made_again(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        let mounts = client.prepare("k", top(&pulled), &none()).unwrap();
        fs::write(upper(&mounts).join("kept"), "x").unwrap();
        fs::remove_dir_all(option(&mounts, "workdir").unwrap()).unwrap();
        assert_eq!(client.mounts("k").unwrap(), mounts);
        assert_eq!(Mounted::new(&mounts).read("kept").as_deref(), Some("x"));
    }

    fn a_repository_that_moved_or_has_another_name_is_followed(kind) {
        let Some(mut site) = Site::new(kind) else { return };
        let image = published(&site);
        let mut daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        let mounts = client.prepare("k", top(&pulled), &none()).unwrap();
        let expected = Mounted::new(&mounts).tree();
        // Moved: another path leads to the same content, the old one is gone.
        let moved = site.beside("moved");
        fs::create_dir(&moved).unwrap();
        let _bind = Bind::new(site.path(), &moved);
        site.unmount();
        let mut settings = site.settings();
        settings.repositories[0].0 = "renamed".into();
        settings.repositories[0].1.clone_from(&moved);
        daemon.configure(&settings);
        daemon.restart();
        let client = daemon.client();
        assert_eq!(client.mounts("k").unwrap(), mounts);
        let targets: Vec<_> = lowers(&mounts).iter().filter_map(|lower| fs::read_link(lower).ok()).collect();
        assert!(targets.len() == 3 && targets.iter().all(|target| target.starts_with(&moved)), "{targets:?}");
        assert_eq!(Mounted::new(&mounts).tree(), expected);
        assert_eq!(testkit::Namespace::new(&client, "x", testkit::Style::New).pull(&image), pulled);
        assert!(option(&mounts, "upperdir").is_some());
    }
}

struct Bind(std::path::PathBuf);

impl Bind {
    fn new(source: &std::path::Path, target: &std::path::Path) -> Self {
        nix::mount::mount(Some(source), target, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(target.to_owned())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
