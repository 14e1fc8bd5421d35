//! Gives layers to the daemon, as containerd does, and compares what is mounted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use containerd_snapshots::api::types::Mount;
use containerd_snapshots::tonic::{Code, Status};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use sha2::{Digest as _, Sha256};

use testkit::layer_model::disk;
use testkit::layer_model::{File, Layer, What, merged};
use testkit::{Client, Daemon, Labels, Sandbox};

/// containerd sends no more than fit into a label.
const MAX_LISTED: usize = 56;
/// What mount(2) takes; it cuts longer options without a word.
const MAX_OPTIONS: usize = 4095;
/// containerd mounts from within the snapshots if the options would have more than a page less this.
const COMPACT: usize = 4096 - 512;

/// Verifies cases one after the other, each with snapshots of its own.
pub(crate) struct Verifier<'a> {
    daemon: &'a Daemon,
    client: Client,
    repository: PathBuf,
    mountpoint: PathBuf,
    number: usize,
}

/// What became of a case that was right.
pub(crate) struct Outcome {
    /// How many layers were used in place.
    pub(crate) in_place: usize,
}

/// Runs with a daemon whose state and repository are in memory, in a mount namespace that ends with the test.
pub(crate) fn with_verifier(run: impl FnOnce(&mut Verifier<'_>) + Send) {
    let sandbox = Sandbox::new();
    mount(Some("tmpfs"), sandbox.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("a tmpfs");
    let repository = sandbox.mkdir("repository/.layers");
    let config =
        format!("[[repositories]]\nname = \"test\"\npath = {:?}\nkind = \"directory\"\n", sandbox.join("repository"));
    let daemon = Daemon::start_in(&sandbox, &config);
    let mountpoint = sandbox.mkdir("mountpoint");
    let result = std::thread::scope(|scope| {
        let verifier = || {
            // Of this thread only; changing the directory is, too.
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("a mount namespace");
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            let client = Client::connect(&daemon.socket());
            run(&mut Verifier { daemon: &daemon, client, repository, mountpoint, number: 0 });
        };
        scope.spawn(verifier).join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl Verifier<'_> {
    /// Verifies a case, and tells what was wrong.
    pub(crate) fn verify(&mut self, layers: &[Layer]) -> Result<Outcome, String> {
        self.number += 1;
        let number = self.number;
        let mut case = Case { verifier: self, number, chain: Vec::new(), in_place: 0 };
        let result = case.run(layers);
        let removed = case.remove();
        result.and_then(|outcome| removed.map(|()| outcome))
    }

    /// What the daemon has printed.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Panics if the cases have left anything behind.
    pub(crate) fn must_be_empty(&mut self) {
        self.client.cleanup().expect("clean-up");
        let left = fs::read_dir(self.daemon.root().join("snapshots")).expect("the snapshots");
        let left = left.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        assert!(left.is_empty(), "{left:?}");
    }
}

struct Case<'a, 'b> {
    verifier: &'a mut Verifier<'b>,
    number: usize,
    /// The names of the committed snapshots, the lowest first.
    chain: Vec<String>,
    in_place: usize,
}

impl Case<'_, '_> {
    fn run(&mut self, layers: &[Layer]) -> Result<Outcome, String> {
        let digests = layers.iter().map(|layer| self.digest(layer)).collect::<Vec<_>>();
        for (layer, digest) in layers.iter().zip(&digests).filter(|(layer, _)| layer.published) {
            let path = self.verifier.repository.join(&digest[..2]).join(digest).join("layerfs");
            if !path.exists() {
                fs::create_dir_all(&path).and_then(|()| disk::write_published(&path, &layer.root)).map_err(told)?;
            }
        }
        let mut target = String::new();
        // At this one the pull ends: containerd refuses it, too.
        let invalid = layers.iter().position(|layer| !layer.root.is_valid());
        for number in 0..invalid.map_or(layers.len(), |number| number + 1) {
            target = hash(&format!("{target} {}", digests[number]));
            self.extract(layers, number, &digests, &format!("sha256:{target}"))?;
        }
        let Some(expected) = merged(&layers[..invalid.unwrap_or(layers.len())]) else {
            return Ok(Outcome { in_place: 0 });
        };
        self.view(&expected)?;
        self.container(expected)?;
        Ok(Outcome { in_place: self.in_place })
    }

    /// Layers that are the same have the same digest, within a case.
    fn digest(&self, layer: &Layer) -> String {
        hash(&format!("{} {} {:?}", self.number, layer.published, layer.root))
    }

    fn key(&self, name: &str) -> String {
        format!("test/{}/{name}", self.number)
    }

    /// One layer of a pull.
    fn extract(&mut self, layers: &[Layer], number: usize, digests: &[String], target: &str) -> Result<(), String> {
        let parent = self.chain.last().cloned().unwrap_or_default();
        let digest = |digest: &String| format!("sha256:{digest}");
        let listed = digests[number..].iter().take(MAX_LISTED).map(digest).collect::<Vec<_>>().join(",");
        let labels = HashMap::from([
            ("containerd.io/snapshot.ref".to_owned(), target.to_owned()),
            ("containerd.io/snapshot/cri.image-ref".to_owned(), format!("test/{}:1", self.number)),
            ("containerd.io/snapshot/cri.layer-digest".to_owned(), digest(&digests[number])),
            ("containerd.io/snapshot/cri.image-layers".to_owned(), listed),
        ]);
        let key = self.key(&format!("extract-{number}-x {target}"));
        let what = format!("the Prepare of layer {number}");
        match self.verifier.client.prepare(&key, &parent, &labels) {
            Err(status) if status.code() == Code::AlreadyExists => {
                if !layers[number].published || !layers[number].root.is_valid() {
                    return Err(format!("{what}: it is nowhere, or says what no layer may say, but {status}"));
                }
                self.in_place += 1;
                // As containerd's metadata store looks it up.
                let filter = format!("labels.\"containerd.io/snapshot.ref\"==\"{target}\",parent==\"{parent}\"");
                match self.verifier.client.list(&[&filter]).map_err(|status| refused(&what, &status))?.as_slice() {
                    [info] => self.chain.push(info.name.clone()),
                    infos => return Err(format!("{what}: {infos:?} are listed")),
                }
                Ok(())
            }
            Err(status) => Err(refused(&what, &status)),
            Ok(_) if !layers[number].root.is_valid() => {
                self.verifier.client.remove(&key).map_err(|status| refused("Remove", &status))
            }
            Ok(mounts) => {
                let mount = one(mounts);
                let below = merged(&layers[..number]);
                self.unpack(&mount, &layers[number].root, below.as_ref())
                    .map_err(|error| format!("{what}: {error}"))?;
                let name = self.key(target);
                let committed = self.verifier.client.commit(&name, &key, &labels);
                committed.map_err(|status| refused(&format!("the Commit of layer {number}"), &status))?;
                self.chain.push(name);
                Ok(())
            }
        }
    }

    /// As containerd applies an archive: into the upper directory of an overlay, into the mount otherwise.
    fn unpack(&self, mount: &Mount, root: &File, below: Option<&File>) -> Result<(), String> {
        if mount.r#type != "overlay" {
            let bare = merged(&[Layer { published: false, root: root.clone() }]).expect("one layer");
            let What::Dir(entries) = bare.what else { return Err("a root that is no directory".into()) };
            for (name, file) in &entries {
                disk::write(&disk::place(Path::new(&mount.source), name), file).map_err(told)?;
            }
            return Ok(());
        }
        // containerd looks for parent directories here, and takes anything but layers for an error.
        for lower in option(mount, "lowerdir=")?.split(':') {
            if !lower.ends_with("/fs") {
                return Err(format!("{lower} is no layer, but among the lower directories of an extraction"));
            }
        }
        disk::write_local(Path::new(option(mount, "upperdir=")?), root, below).map_err(told)
    }

    fn view(&mut self, expected: &File) -> Result<(), String> {
        let key = self.key("view");
        let parent = self.chain.last().cloned().unwrap_or_default();
        let view = self.verifier.client.view(&key, &parent, &Labels::new());
        let mounted = self.mount(&one(view.map_err(|status| refused("View", &status))?))?;
        disk::compare("the view", expected, &mounted.0, true)?;
        if fs::write(mounted.0.join("new"), "").is_ok() {
            return Err("the view can be written".into());
        }
        Ok(())
    }

    /// A container, which replaces some directories, before and after it is mounted again.
    fn container(&mut self, mut expected: File) -> Result<(), String> {
        let key = self.key("container");
        let parent = self.chain.last().cloned().unwrap_or_default();
        let prepared = self.verifier.client.prepare(&key, &parent, &Labels::new());
        let prepared = one(prepared.map_err(|status| refused("Prepare", &status))?);
        let mounted = self.mount(&prepared)?;
        disk::compare("the container", &expected, &mounted.0, true)?;
        let paths = expected.paths();
        let dirs = paths.iter().filter(|path| expected.at(path).is_some_and(|file| file.entries().is_some()));
        let replaced: Vec<String> = dirs.step_by(3).cloned().collect();
        for path in replaced {
            // Unless it was in one that has been replaced.
            if let Some(dir) = expected.at_mut(&path) {
                *dir = new_dir();
                let path = disk::place(&mounted.0, &path);
                let replaced = fs::remove_dir_all(&path).and_then(|()| disk::write(&path, dir));
                replaced.map_err(|error| format!("{} is replaced: {error}", path.display()))?;
            }
        }
        disk::compare("the container after changes", &expected, &mounted.0, false)?;
        drop(mounted);
        let again = one(self.verifier.client.mounts(&key).map_err(|status| refused("Mounts", &status))?);
        if again != prepared {
            return Err(format!("Mounts says {again:?}, Prepare said {prepared:?}"));
        }
        let mounted = self.mount(&again)?;
        disk::compare("the container mounted again", &expected, &mounted.0, false)
    }

    /// Mounts as containerd does.
    #[expect(clippy::disallowed_methods, reason = "as containerd does; only this thread moves, see `with_verifier`")]
    fn mount(&self, what: &Mount) -> Result<Mounted, String> {
        let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
        for option in &what.options {
            match option.as_str() {
                "ro" => flags |= MsFlags::MS_RDONLY,
                "rw" => {}
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                other => data.push(other.to_owned()),
            }
        }
        let size = |data: &[String]| data.iter().map(|option| option.len() + 1).sum::<usize>();
        let snapshots = self.verifier.daemon.root().join("snapshots");
        let here = std::env::current_dir().map_err(told)?;
        if size(&data) >= COMPACT {
            let prefix = format!("{}/", snapshots.display());
            for option in data.iter_mut().filter(|option| option.starts_with("lowerdir=")) {
                *option = option.replace(&prefix, "");
            }
            std::env::set_current_dir(&snapshots).map_err(told)?;
        }
        let data = data.join(",");
        if data.len() > MAX_OPTIONS {
            return Err(format!("{} bytes of options", data.len()));
        }
        let target = &self.verifier.mountpoint;
        let kind = (what.r#type != "bind").then_some(what.r#type.as_str());
        let result = mount(Some(what.source.as_str()), target, kind, flags, Some(data.as_str()));
        std::env::set_current_dir(here).map_err(told)?;
        result.map_err(|error| format!("mount {what:?}: {error}"))?;
        if kind.is_none() && flags.contains(MsFlags::MS_RDONLY) {
            let again = flags | MsFlags::MS_REMOUNT;
            mount(None::<&str>, target, None::<&str>, again, None::<&str>).map_err(|error| error.to_string())?;
        }
        Ok(Mounted(target.clone()))
    }

    /// Removes all that the case has made, the youngest first.
    fn remove(&mut self) -> Result<(), String> {
        let client = &mut self.verifier.client;
        let prefix = format!("test/{}/", self.number);
        for key in [format!("{prefix}container"), format!("{prefix}view")] {
            match client.remove(&key) {
                Err(status) if status.code() != Code::NotFound => return Err(refused("Remove", &status)),
                _ => {}
            }
        }
        for name in self.chain.iter().rev() {
            client.remove(name).map_err(|status| refused("Remove", &status))?;
        }
        Ok(())
    }
}

/// Unmounts when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::empty()).expect("nobody else sees this mount");
    }
}

/// What a container puts in the place of a directory.
fn new_dir() -> File {
    let file = File { mode: 0o600, uid: 1, gid: 1, mtime: 1, what: What::Regular("new".into()) };
    File { mode: 0o755, uid: 0, gid: 0, mtime: 1, what: What::Dir([("new".to_owned(), file)].into()) }
}

fn option<'a>(mount: &'a Mount, name: &str) -> Result<&'a str, String> {
    let found = mount.options.iter().find_map(|option| option.strip_prefix(name));
    found.ok_or_else(|| format!("no {name} in {mount:?}"))
}

/// Older clients take exactly one.
fn one(mut mounts: Vec<Mount>) -> Mount {
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    mounts.remove(0)
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn told(error: std::io::Error) -> String {
    error.to_string()
}

fn refused(what: &str, status: &Status) -> String {
    format!("{what}: {:?} {}", status.code(), status.message())
}
