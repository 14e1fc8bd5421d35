//! What was acknowledged: the model that the daemon is compared with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_snapshots::api::types::Mount;

use crate::images::written;
use testkit::layer_model::{Entries, File, Layer};
use testkit::{Info, Labels, option, times};

/// Kinds as in the API.
pub(crate) const VIEW: i32 = 1;
pub(crate) const ACTIVE: i32 = 2;
pub(crate) const COMMITTED: i32 = 3;

const TARGET: &str = "containerd.io/snapshot.ref";
const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";

/// A snapshot, and what a mount of it has to show on top of its parent.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) kind: i32,
    pub(crate) parent: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) content: Content,
    /// Of its directory, which it keeps as long as it lives; `None` if it has none, or nobody saw the answer that tells.
    pub(crate) id: Option<u64>,
    /// When it was created and updated; `None` if no answer has told since the last change.
    pub(crate) times: Option<(SystemTime, SystemTime)>,
    /// Bytes and inodes of a committed snapshot, once an answer has told.
    pub(crate) usage: Option<(i64, i64)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Of a committed snapshot.
    Layer(Arc<Layer>),
    /// What a container has written and synced.
    Written(Entries),
    /// Of an extraction that has not come to its Commit: anything.
    Unknown,
    /// A view has nothing of its own.
    Nothing,
}

impl Known {
    pub(crate) fn new(kind: i32, parent: &str, labels: &Labels, content: Content) -> Self {
        Self {
            kind,
            parent: parent.to_owned(),
            labels: labels.clone().into_iter().collect(),
            content,
            id: None,
            times: None,
            usage: None,
        }
    }

    /// Compares the times that an answer tells with those of the last one.
    pub(crate) fn see(&mut self, info: &Info) -> Result<(), String> {
        let times = times(info);
        let known = *self.times.get_or_insert(times);
        if known == times { Ok(()) } else { Err(format!("{:?}: times {times:?}, were {known:?}", info.name)) }
    }

    /// As [`Self::see`], where an update has happened since.
    pub(crate) fn see_updated(&mut self, info: &Info) -> Result<(), String> {
        let updated = times(info).1;
        if let Some(times) = &mut self.times {
            times.1 = updated;
        }
        self.see(info)
    }

    /// Compares the usage, which does not change once a snapshot is committed.
    pub(crate) fn see_usage(&mut self, usage: (i64, i64)) -> Result<(), String> {
        if self.kind != COMMITTED {
            return Ok(());
        }
        let known = *self.usage.get_or_insert(usage);
        if known == usage { Ok(()) } else { Err(format!("usage {usage:?}, was {known:?}")) }
    }

    /// The same, with the directory that these mounts of it tell.
    pub(crate) fn mounted(self, mounts: &[Mount]) -> Self {
        Self { id: Some(own_id(mounts)), ..self }
    }

    fn target(&self) -> Option<&str> {
        self.labels.get(TARGET).map(String::as_str)
    }

    /// What the daemon can tell of it.
    fn shown(&self, name: &str) -> String {
        format!("{name:?}: kind {} on {:?} {:?}", self.kind, self.parent, self.labels)
    }
}

/// A request that may or may not have happened, because nobody saw its answer.
#[derive(Debug)]
pub(crate) enum Pending {
    Create {
        name: String,
        known: Known,
    },
    /// A layer that is used in place; `acknowledged` if only its name was not learnt.
    InPlace {
        known: Known,
        acknowledged: bool,
    },
    Commit {
        key: String,
        name: String,
        known: Known,
    },
    Remove {
        name: String,
    },
    Update {
        name: String,
        known: Known,
    },
    /// A file that a container was writing.
    Write {
        key: String,
        file: String,
    },
    /// Nothing that leaves a trace.
    Nothing,
}

/// Everything that was acknowledged.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) snapshots: BTreeMap<String, Known>,
    /// By namespace and chain ID: what containerd's metadata of the namespace has.
    pub(crate) pulled: HashMap<(String, String), String>,
    /// Snapshots that a request is about to change.
    busy: HashSet<String>,
    /// What a request under way stands on, and must not be removed.
    pins: HashMap<String, usize>,
    sequence: u64,
}

impl Model {
    /// A number that is used once.
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn take(&mut self, name: &str) {
        assert!(self.busy.insert(name.to_owned()), "{name} is taken");
    }

    pub(crate) fn give_back(&mut self, name: &str) {
        self.busy.remove(name);
    }

    pub(crate) fn pin(&mut self, name: &str) {
        *self.pins.entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, name: &str) {
        if let Some(count) = self.pins.get_mut(name) {
            *count -= 1;
        }
    }

    fn is_pinned(&self, name: &str) -> bool {
        self.pins.get(name).is_some_and(|count| *count > 0)
    }

    /// Nobody is at work any more.
    pub(crate) fn rest(&mut self) {
        self.busy.clear();
        self.pins.clear();
    }

    /// A snapshot that fits, and that no request is about to change.
    pub(crate) fn pick(&self, random: &mut fastrand::Rng, fits: impl Fn(&str, &Known) -> bool) -> Option<String> {
        let free = self.snapshots.iter().filter(|(name, known)| !self.busy.contains(*name) && fits(name, known));
        let names: Vec<&String> = free.map(|(name, _)| name).collect();
        random.choice(&names).map(|name| (*name).clone())
    }

    /// Those that nothing stands on, and that nobody needs now.
    pub(crate) fn pick_leaf(&self, random: &mut fastrand::Rng) -> Option<String> {
        let parents: HashSet<&str> = self.snapshots.values().map(|known| known.parent.as_str()).collect();
        self.pick(random, |name, known| {
            let wanted = known.target().is_some_and(|target| self.is_pinned(&in_place(target, &known.parent)));
            !parents.contains(name) && !self.is_pinned(name) && !wanted
        })
    }

    /// Whether a snapshot is there, and stays.
    pub(crate) fn can_be_parent(&self, name: &str) -> bool {
        name.is_empty() || (self.snapshots.contains_key(name) && !self.busy.contains(name))
    }

    /// Whether a snapshot for this target and parent is about to be removed.
    pub(crate) fn is_leaving(&self, target: &str, parent: &str) -> bool {
        self.busy
            .iter()
            .filter_map(|name| self.snapshots.get(name))
            .any(|known| known.kind == COMMITTED && known.target() == Some(target) && known.parent == parent)
    }

    /// Adds a layer in place as it is listed. Its labels are those of whoever was the first to ask for it.
    pub(crate) fn learn_in_place(&mut self, info: &Info, known: &Known) {
        let layer = |labels: &BTreeMap<_, _>| labels.get(LAYER).cloned();
        let listed = Known { labels: info.labels.clone().into_iter().collect(), ..known.clone() };
        assert_eq!((listed.target(), layer(&listed.labels)), (known.target(), layer(&known.labels)), "{}", info.name);
        // If it is known already, another client may have updated it since.
        let known = Known { times: Some(times(info)), ..listed };
        self.snapshots.entry(info.name.clone()).or_insert(known);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.snapshots.remove(name);
        self.pulled.retain(|_, pulled| pulled != name);
    }

    /// Asks for the mounts of all that have some, and compares or learns their ids.
    pub(crate) fn see_ids(&mut self, mounts: impl Fn(&str) -> Vec<Mount>) {
        for (name, known) in self.snapshots.iter_mut().filter(|(_, known)| known.kind != COMMITTED) {
            let mounts = mounts(name);
            if known.kind == ACTIVE || known.parent.is_empty() {
                let id = own_id(&mounts);
                assert_eq!(*known.id.get_or_insert(id), id, "{name}");
            }
        }
    }

    /// The layers of a snapshot, the lowest first; `None` if it is not known what is in it.
    pub(crate) fn layers(&self, name: &str) -> Option<Vec<Layer>> {
        let Some(known) = self.snapshots.get(name) else { return Some(Vec::new()) };
        let mut layers = self.layers(&known.parent)?;
        match &known.content {
            Content::Layer(layer) => layers.push((**layer).clone()),
            Content::Written(entries) => layers.push(written(entries.clone())),
            Content::Nothing => {}
            Content::Unknown => return None,
        }
        Some(layers)
    }

    /// Decides which of the requests under way have happened, and compares all with what the daemon lists.
    pub(crate) fn settle(&mut self, pending: &[Pending], listed: &[Info]) -> Result<Settled, String> {
        let mut settled = Settled::default();
        let actual: BTreeMap<&str, &Info> = listed.iter().map(|info| (info.name.as_str(), info)).collect();
        for pending in pending {
            let happened = match pending {
                Pending::Create { name, known } => {
                    let is_there = actual.contains_key(name.as_str());
                    if is_there {
                        self.snapshots.insert(name.clone(), known.clone());
                    }
                    is_there
                }
                Pending::InPlace { known, acknowledged } => {
                    let is_it = |info: &&Info| {
                        info.labels.get(TARGET).map(String::as_str) == known.target()
                            && info.parent == known.parent
                            && id_in_place(&info.name).is_some()
                    };
                    let found = listed.iter().find(is_it);
                    if *acknowledged && found.is_none() {
                        return Err(format!("lost: {}", known.shown("a layer in place")));
                    }
                    if let Some(info) = found {
                        self.learn_in_place(info, known);
                    }
                    found.is_some()
                }
                Pending::Commit { key, name, known } => {
                    let is_there = actual.contains_key(name.as_str());
                    if is_there {
                        self.remove(key);
                        self.snapshots.insert(name.clone(), known.clone());
                    }
                    is_there
                }
                Pending::Remove { name } => {
                    let is_gone = !actual.contains_key(name.as_str());
                    if is_gone {
                        self.remove(name);
                    }
                    is_gone
                }
                Pending::Update { name, known } => {
                    let labels = actual.get(name.as_str()).map(|info| info.labels.clone().into_iter().collect());
                    let is_new = labels.as_ref() == Some(&known.labels);
                    if let Some(info) = actual.get(name.as_str()).filter(|_| is_new) {
                        let mut known = known.clone();
                        known.see_updated(info)?;
                        self.snapshots.insert(name.clone(), known);
                    }
                    is_new
                }
                Pending::Write { key, file } => {
                    settled.uncertain.push((key.clone(), file.clone()));
                    continue;
                }
                Pending::Nothing => continue,
            };
            *if happened { &mut settled.happened } else { &mut settled.did_not } += 1;
        }
        let shown = |info: &Info| Known::new(info.kind, &info.parent, &info.labels, Content::Nothing).shown(&info.name);
        let found: HashSet<String> = listed.iter().map(shown).collect();
        let expected: HashSet<String> = self.snapshots.iter().map(|(name, known)| known.shown(name)).collect();
        let lost: Vec<&String> = expected.difference(&found).collect();
        let unexpected: Vec<&String> = found.difference(&expected).collect();
        if lost.is_empty() && unexpected.is_empty() {
            for (name, known) in &mut self.snapshots {
                known.see(actual[name.as_str()])?;
            }
            return Ok(settled);
        }
        Err(format!("lost: {lost:#?}\nunexpected: {unexpected:#?}\nunder way: {pending:#?}"))
    }

    /// Adds a file that a container has written.
    pub(crate) fn wrote(&mut self, key: &str, name: &str, file: &File) {
        if let Some(Content::Written(entries)) = self.snapshots.get_mut(key).map(|known| &mut known.content) {
            entries.insert(name.to_owned(), file.clone());
        }
    }
}

/// What the requests under way came to.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) happened: u64,
    pub(crate) did_not: u64,
    /// Files of active snapshots that may be there, in part or not at all.
    pub(crate) uncertain: Vec<(String, String)>,
}

/// The id of the snapshot that is mounted so, which has a directory of its own.
pub(crate) fn own_id(mounts: &[Mount]) -> u64 {
    let fs = option(mounts, "upperdir").unwrap_or(&mounts[0].source);
    let id = fs.strip_suffix("/fs").and_then(|directory| directory.rsplit_once('/')?.1.parse().ok());
    id.unwrap_or_else(|| panic!("{mounts:?}"))
}

/// The id of a snapshot that is a layer in place: its name is the daemon's own, and ends with it.
pub(crate) fn id_in_place(name: &str) -> Option<u64> {
    name.rsplit_once('@')?.1.parse().ok()
}

/// The name under which the use of a layer in place is pinned.
pub(crate) fn in_place(target: &str, parent: &str) -> String {
    format!("{target} on {parent}")
}
