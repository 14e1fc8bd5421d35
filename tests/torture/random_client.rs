//! A client that sends random requests, each of which containerd could send, until the daemon is gone.

use std::fs::File as OpenFile;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use containerd_snapshots::api::types::Mount;
use containerd_snapshots::tonic::{Code, Status};

use crate::images::{Image, file, written};
use crate::model::{ACTIVE, COMMITTED, Content, Known, Model, Pending, VIEW, id_in_place, in_place};
use crate::table::Table;
use testkit::layer_model::disk;
use testkit::layer_model::{Entries, File, What, merged};
use testkit::{Client, Labels, Mounted, Style, extract_key, labels, option, target_filter, upper};

/// What all clients share.
pub(crate) struct Run<'a> {
    pub(crate) images: &'a [Image],
    pub(crate) model: Mutex<Model>,
    pub(crate) table: Mutex<Table>,
    /// The daemon is about to be killed: requests may fail from now on, and what is written may not last.
    pub(crate) ends: AtomicBool,
    /// Whether the disk may lose what is not synced.
    pub(crate) sync: bool,
    /// About how many snapshots there are.
    pub(crate) size: usize,
}

/// The request that was under way when the daemon went away.
type Attempt<T> = Result<T, Box<Pending>>;

pub(crate) struct RandomClient<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) client: Client,
    pub(crate) namespace: &'static str,
    pub(crate) random: fastrand::Rng,
}

impl RandomClient<'_> {
    /// Sends requests until the daemon is gone.
    pub(crate) fn work(mut self) -> Pending {
        loop {
            let total = self.run.model.lock().unwrap().snapshots.len();
            let removals = if total > self.run.size { 60 } else { 20 };
            let step = match self.random.usize(..100 + removals) {
                0..30 => self.pull(),
                30..42 => self.container(),
                42..60 => self.write(),
                60..66 => self.view(),
                66..75 => self.commit(),
                75..84 => self.update(),
                84..88 => self.clean_up(),
                88..100 => self.look(),
                _ => self.remove(),
            };
            if let Err(pending) = step {
                return *pending;
            }
        }
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.run.model.lock().unwrap()
    }

    /// Counts an answer; `pending` is what may have happened if there is none.
    fn call<T>(&self, what: &'static str, answer: Result<T, Status>, pending: impl FnOnce() -> Pending) -> Attempt<T> {
        let mut table = self.run.table.lock().unwrap();
        match answer {
            Ok(answer) => {
                table.answered(what);
                Ok(answer)
            }
            Err(status) if self.run.ends.load(Ordering::SeqCst) && is_end(&status) => {
                table.cut_off(what);
                Err(Box::new(pending()))
            }
            Err(status) => panic!("{what}: {:?} {}", status.code(), status.message()),
        }
    }

    fn pull(&mut self) -> Attempt<()> {
        let image = self.random.choice(self.run.images).expect("there are images");
        let style = if self.random.bool() { Style::New } else { Style::Old };
        let mut parent = String::new();
        for number in 0..image.layers.len() {
            let Some(name) = self.layer(image, number, &parent, style)? else { return Ok(()) };
            parent = name;
        }
        Ok(())
    }

    /// One layer of a pull; the name of its snapshot, if there can be one now.
    fn layer(&mut self, image: &Image, number: usize, parent: &str, style: Style) -> Attempt<Option<String>> {
        let target = &image.chain[number];
        let pulled = (self.namespace.to_owned(), target.clone());
        let wanted = in_place(target, parent);
        let key = {
            let mut model = self.model();
            if let Some(name) = model.pulled.get(&pulled) {
                return Ok(Some(name.clone()));
            }
            // containerd removes nothing in the middle of a Prepare.
            if !model.can_be_parent(parent) || model.is_leaving(target, parent) {
                return Ok(None);
            }
            model.pin(parent);
            model.pin(&wanted);
            extract_key(self.namespace, model.next(), target)
        };
        let labels = image.manifest.labels(number, style);
        let name = if image.layers[number].published {
            self.layer_in_place(image, number, &key, parent, &labels)
        } else {
            self.layer_to_extract(image, number, &key, parent, &labels)
        }?;
        let mut model = self.model();
        model.pulled.insert(pulled, name.clone());
        model.unpin(parent);
        model.unpin(&wanted);
        Ok(Some(name))
    }

    fn layer_in_place(
        &self,
        image: &Image,
        number: usize,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Attempt<String> {
        let layer = &image.layers[number];
        let known = Known::new(COMMITTED, parent, labels, Content::Layer(Arc::clone(layer)));
        let answer = match self.client.prepare(key, parent, labels) {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(status),
            Ok(_) => panic!("layer {number} of {} is there, but is not used in place", image.manifest.reference),
        };
        let pending = || Pending::InPlace { known: known.clone(), acknowledged: false };
        self.call("Prepare, in place", answer, pending)?;
        let filter = target_filter(&image.chain[number], parent);
        let pending = || Pending::InPlace { known: known.clone(), acknowledged: true };
        let found = self.call("List", self.client.list(&[&filter]), pending)?;
        // Commits of other namespaces are listed as well.
        let Some(info) = found.iter().find(|info| id_in_place(&info.name).is_some()) else {
            panic!("{filter}: {found:?}")
        };
        self.model().learn_in_place(info, &known);
        Ok(info.name.clone())
    }

    fn layer_to_extract(
        &self,
        image: &Image,
        number: usize,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Attempt<String> {
        let layer = &image.layers[number];
        let active = Known::new(ACTIVE, parent, labels, Content::Unknown);
        let pending = || Pending::Create { name: key.to_owned(), known: active.clone() };
        let mounts = self.call("Prepare, to extract", self.client.prepare(key, parent, labels), pending)?;
        let active = active.mounted(&mounts);
        let id = active.id;
        let name = {
            let mut model = self.model();
            model.snapshots.insert(key.to_owned(), active);
            model.take(key);
            format!("{}/{}/{}", self.namespace, model.next(), image.chain[number])
        };
        let below: Vec<_> = image.layers[..number].iter().map(|layer| (**layer).clone()).collect();
        extract(&mounts, &layer.root, merged(&below).as_ref());
        let known = Known { id, ..Known::new(COMMITTED, parent, labels, Content::Layer(Arc::clone(layer))) };
        let pending = || Pending::Commit { key: key.to_owned(), name: name.clone(), known: known.clone() };
        self.call("Commit", self.client.commit(&name, key, labels), pending)?;
        let mut model = self.model();
        model.remove(key);
        model.give_back(key);
        model.snapshots.insert(name.clone(), known);
        Ok(name)
    }

    /// A committed snapshot, or none, pinned; and a key of the namespace.
    fn parent(&mut self, kind: &str) -> (String, String) {
        let mut model = self.run.model.lock().unwrap();
        let parent = match self.random.u8(..5) {
            0 => None,
            _ => model.pick(&mut self.random, |_, known| known.kind == COMMITTED),
        };
        let parent = parent.unwrap_or_default();
        model.pin(&parent);
        (parent, format!("{}/{}/{kind}", self.namespace, model.next()))
    }

    fn container(&mut self) -> Attempt<()> {
        let (parent, key) = self.parent("container");
        let labels = labels(&[("containerd.io/snapshot/test", &key)]);
        let known = Known::new(ACTIVE, &parent, &labels, Content::Written(Entries::new()));
        let answer = self.client.prepare(&key, &parent, &labels);
        let mounts = self.call("Prepare", answer, || Pending::Create { name: key.clone(), known: known.clone() })?;
        let known = known.mounted(&mounts);
        let mut model = self.model();
        model.unpin(&parent);
        model.snapshots.insert(key, known);
        Ok(())
    }

    fn view(&mut self) -> Attempt<()> {
        let (parent, key) = self.parent("view");
        let labels = labels(&[("containerd.io/snapshot/test", &key)]);
        let known = Known::new(VIEW, &parent, &labels, Content::Nothing);
        let answer = self.client.view(&key, &parent, &labels);
        let mounts = self.call("View", answer, || Pending::Create { name: key.clone(), known: known.clone() })?;
        let known = if parent.is_empty() { known.mounted(&mounts) } else { known };
        let mut model = self.model();
        model.unpin(&parent);
        model.snapshots.insert(key, known);
        Ok(())
    }

    /// A container writes a file and syncs it.
    fn write(&mut self) -> Attempt<()> {
        let (key, number) = {
            let mut model = self.run.model.lock().unwrap();
            let Some(key) = model.pick(&mut self.random, |_, known| matches!(known.content, Content::Written(_)))
            else {
                return Ok(());
            };
            model.take(&key);
            (key, model.next())
        };
        let mounts = self.call("Mounts", self.client.mounts(&key), || Pending::Nothing)?;
        let name = format!("data-{number}");
        let file = file(usize::try_from(number).unwrap(), self.random.usize(..40_000));
        {
            let mounted = Mounted::new(&mounts);
            disk::write(&mounted.path().join(&name), &file).unwrap();
            if self.run.sync {
                let synced = OpenFile::open(mounted.path().join(&name)).and_then(|file| file.sync_all());
                let synced = synced.and_then(|()| OpenFile::open(mounted.path()).and_then(|dir| dir.sync_all()));
                // Whether that was before the cut can be told only as long as the power is on.
                if synced.is_err() || self.run.ends.load(Ordering::SeqCst) {
                    return Err(Box::new(Pending::Write { key, file: name }));
                }
            }
        }
        let mut model = self.model();
        model.wrote(&key, &name, &file);
        model.give_back(&key);
        Ok(())
    }

    /// As `nerdctl commit`, or a build.
    fn commit(&mut self) -> Attempt<()> {
        let (key, name, was) = {
            let mut model = self.run.model.lock().unwrap();
            let Some(key) = model.pick(&mut self.random, |_, known| matches!(known.content, Content::Written(_)))
            else {
                return Ok(());
            };
            model.take(&key);
            let was = model.snapshots[&key].clone();
            (key, format!("{}/{}/built", self.namespace, model.next()), was)
        };
        let Content::Written(entries) = was.content else { unreachable!("picked by it") };
        let labels = labels(&[("containerd.io/snapshot/test", &name)]);
        let content = Content::Layer(Arc::new(written(entries)));
        let known = Known { id: was.id, ..Known::new(COMMITTED, &was.parent, &labels, content) };
        let pending = || Pending::Commit { key: key.clone(), name: name.clone(), known: known.clone() };
        self.call("Commit", self.client.commit(&name, &key, &labels), pending)?;
        let mut model = self.model();
        model.remove(&key);
        model.give_back(&key);
        model.snapshots.insert(name, known);
        Ok(())
    }

    fn update(&mut self) -> Attempt<()> {
        let (name, mut known, value) = {
            let mut model = self.run.model.lock().unwrap();
            let Some(name) = model.pick(&mut self.random, |_, _| true) else { return Ok(()) };
            model.take(&name);
            (name.clone(), model.snapshots[&name].clone(), model.next().to_string())
        };
        known.labels.insert("containerd.io/snapshot/test".into(), value.clone());
        let label = labels(&[("containerd.io/snapshot/test", &value)]);
        let answer = self.client.update(&name, &label, &["labels.containerd.io/snapshot/test"]);
        let info = self.call("Update", answer, || Pending::Update { name: name.clone(), known: known.clone() })?;
        let mut model = self.model();
        model.give_back(&name);
        // Nobody else changes it meanwhile, but a container may write.
        if let Some(entry) = model.snapshots.get_mut(&name) {
            entry.labels = known.labels;
            entry.see_updated(&info).unwrap_or_else(|wrong| panic!("Update: {wrong}"));
        }
        Ok(())
    }

    fn remove(&mut self) -> Attempt<()> {
        let name = {
            let mut model = self.run.model.lock().unwrap();
            let Some(name) = model.pick_leaf(&mut self.random) else { return Ok(()) };
            model.take(&name);
            name
        };
        self.call("Remove", self.client.remove(&name), || Pending::Remove { name: name.clone() })?;
        let mut model = self.model();
        model.remove(&name);
        model.give_back(&name);
        Ok(())
    }

    fn clean_up(&mut self) -> Attempt<()> {
        self.call("Cleanup", self.client.cleanup(), || Pending::Nothing)
    }

    /// Looks at a snapshot that nobody changes meanwhile.
    fn look(&mut self) -> Attempt<()> {
        let (name, known) = {
            let mut model = self.run.model.lock().unwrap();
            let Some(name) = model.pick(&mut self.random, |_, _| true) else { return Ok(()) };
            model.take(&name);
            (name.clone(), model.snapshots[&name].clone())
        };
        let info = self.call("Stat", self.client.stat(&name), || Pending::Nothing)?;
        let labels: std::collections::BTreeMap<_, _> = info.labels.clone().into_iter().collect();
        assert_eq!(
            (info.kind, info.parent.clone(), labels),
            (known.kind, known.parent.clone(), known.labels.clone()),
            "{name}"
        );
        let (bytes, inodes) = self.call("Usage", self.client.usage(&name), || Pending::Nothing)?;
        let takes_disk = match &known.content {
            Content::Layer(layer) => !layer.published,
            Content::Written(_) | Content::Unknown => true,
            Content::Nothing => false,
        };
        assert!(takes_disk == (inodes > 0) && (takes_disk || bytes == 0), "{name}: {bytes} bytes, {inodes} inodes");
        let mut model = self.model();
        let known = model.snapshots.get_mut(&name).expect("it is taken");
        known
            .see(&info)
            .and_then(|()| known.see_usage((bytes, inodes)))
            .unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        model.give_back(&name);
        Ok(())
    }
}

/// The answers, or none, of a daemon that is not there any more.
fn is_end(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

/// As containerd applies an archive: into the upper directory of an overlay, into the mount otherwise. It syncs nothing.
fn extract(mounts: &[Mount], root: &File, below: Option<&File>) {
    let to = upper(mounts);
    if option(mounts, "upperdir").is_some() {
        return disk::write_local(&to, root, below).unwrap();
    }
    let bare = merged(&[testkit::layer_model::Layer { published: false, root: root.clone() }]).expect("one layer");
    let What::Dir(entries) = bare.what else { panic!("a root that is no directory") };
    for (name, file) in &entries {
        disk::write(&disk::place(Path::new(&to), name), file).unwrap();
    }
}
