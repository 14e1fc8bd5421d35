//! The daemon is killed with SIGKILL at random moments, in the middle of the requests of several clients.
//!
//! Each client keeps a model of what was acknowledged to it. After each kill the daemon has to know all of that, nothing
//! that was removed, and of the one request that was under way either all or nothing. `KILLS=1000` kills more often,
//! `SEED=…` repeats a run.

mod mock_support;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use containerd_snapshots::tonic::Code;
use nix::sys::signal::Signal;

use support::{Client, Daemon, Labels, Layer, Settings, labels, sha256};

const CLIENTS: u64 = 3;

/// What a client knows of one snapshot: kind (as in the API), parent, labels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    kind: i32,
    parent: String,
    labels: BTreeMap<String, String>,
}

const VIEW: i32 = 1;
const ACTIVE: i32 = 2;
const COMMITTED: i32 = 3;

type Model = BTreeMap<String, Known>;

fn known(kind: i32, parent: &str, labels: &Labels) -> Known {
    Known { kind, parent: parent.to_owned(), labels: labels.clone().into_iter().collect() }
}

/// One client: its own names, its own targets, the layers of everybody.
struct Player {
    number: u64,
    random: fastrand::Rng,
    counter: u64,
    model: Model,
}

impl Player {
    fn new(number: u64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number));
        Self { number, random, counter: 0, model: Model::new() }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.random.usize(..below)
    }

    fn one_of(&mut self, wanted: impl Fn(&str, &Known) -> bool) -> Option<String> {
        let names: Vec<_> =
            self.model.iter().filter(|(name, known)| wanted(name, known)).map(|(n, _)| n.clone()).collect();
        if names.is_empty() { None } else { Some(names[self.pick(names.len())].clone()) }
    }

    fn name(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("ns{}/{}/{kind}", self.number, self.counter)
    }

    /// Plays until the daemon is gone. The states that the request under way may have led to, other than the model's.
    fn play(&mut self, client: &Client, layers: &[Layer]) -> Option<Model> {
        loop {
            let before = self.model.clone();
            let mut after = before.clone();
            let parent = match self.pick(4) {
                0 => String::new(),
                _ => self.one_of(|_, known| known.kind == COMMITTED).unwrap_or_default(),
            };
            let marked = labels(&[("containerd.io/snapshot/test", &self.counter.to_string())]);
            let result = match self.pick(10) {
                0..=2 => {
                    let layer = layers[self.pick(layers.len())].clone();
                    let key_base = self.name("");
                    // The chain ID is made up: the layers have no record of a diff ID to compare it with.
                    let target = format!("sha256:{}", sha256(&format!("{key_base}{parent}")));
                    let labels = labels(&[
                        ("containerd.io/snapshot.ref", &target),
                        ("containerd.io/snapshot/cri.layer-digest", &format!("sha256:{}", layer.digest)),
                    ]);
                    let answer = client.prepare(&format!("{key_base}extract-1-x {target}"), &parent, &labels);
                    after.insert(target.clone(), known(COMMITTED, &parent, &labels));
                    match answer {
                        Err(status) if status.code() == Code::AlreadyExists => {
                            // The name is the daemon's to choose, and the next request may be the last.
                            match client.list(&[&format!("labels.\"containerd.io/snapshot.ref\"=={target}")]) {
                                Ok(found) => {
                                    assert_eq!(found.len(), 1, "{target}");
                                    after.remove(&target);
                                    after.insert(found[0].name.clone(), known(COMMITTED, &parent, &labels));
                                    Ok(())
                                }
                                Err(_) => {
                                    self.model = after;
                                    return None;
                                }
                            }
                        }
                        Err(status) => Err(status),
                        Ok(_) => panic!("the layer is there, but was not used in place"),
                    }
                }
                3 | 4 => {
                    let key = self.name("active");
                    after.insert(key.clone(), known(ACTIVE, &parent, &marked));
                    client.prepare(&key, &parent, &marked).map(drop)
                }
                5 => {
                    let key = self.name("view");
                    after.insert(key.clone(), known(VIEW, &parent, &marked));
                    client.view(&key, &parent, &marked).map(drop)
                }
                6 | 7 => match self.one_of(|_, known| known.kind == ACTIVE) {
                    None => continue,
                    Some(key) => {
                        let name = self.name("committed");
                        let was = after.remove(&key).unwrap();
                        after.insert(name.clone(), known(COMMITTED, &was.parent, &marked));
                        client.commit(&name, &key, &marked)
                    }
                },
                8 => match self.one_of(|_, _| true) {
                    None => continue,
                    Some(name) => {
                        let known = after.get_mut(&name).unwrap();
                        known.labels.insert("containerd.io/snapshot/test".into(), "updated".into());
                        let label = labels(&[("containerd.io/snapshot/test", "updated")]);
                        client.update(&name, &label, &["labels.containerd.io/snapshot/test"]).map(drop)
                    }
                },
                _ => {
                    let parents: BTreeSet<_> = before.values().map(|known| known.parent.clone()).collect();
                    match self.one_of(|name, _| !parents.contains(name)) {
                        None => continue,
                        Some(name) => {
                            after.remove(&name);
                            client.remove(&name)
                        }
                    }
                }
            };
            match result {
                Ok(()) => self.model = after,
                Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                    return Some(after);
                }
                Err(status) => panic!("{status:?}"),
            }
        }
    }
}

/// A remote commit whose name was not learnt stands in the model under its target.
fn shown(name: &str, known: &Known) -> String {
    let mut text = String::new();
    let name = name.split('@').next().unwrap_or(name);
    let parent = known.parent.as_str();
    write!(text, "{name} kind {} on {parent:?} {:?}", known.kind, known.labels).unwrap();
    text
}

fn model_lines(model: &Model) -> BTreeSet<String> {
    model.iter().map(|(name, known)| shown(name, known)).collect()
}

#[test]
fn what_was_acknowledged_survives_and_nothing_is_half_done() {
    if !support::is_root() {
        return;
    }
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills: u64 = setting("KILLS").unwrap_or(25);
    let seed: u64 = setting("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("KILLS={kills} SEED={seed}");
    let site = support::Site::new(support::Kind::Directory).unwrap();
    let files = |n: u64| [("a/.wh.x".to_owned(), String::new()), (format!("f{n}"), "text".to_owned())];
    let layers: Vec<Layer> = (0..4)
        .map(|n| {
            let mut layer = Layer::new(&format!("layer {n}"), &[]);
            layer.files = files(n).to_vec();
            layer.publish_without_record(&site.backing());
            layer
        })
        .collect();
    let settings: Settings = site.settings();
    let mut daemon = Daemon::start(&settings);
    let mut players: Vec<Player> = (0..CLIENTS).map(|number| Player::new(number, seed)).collect();
    let mut moments = Player::new(CLIENTS, seed);
    for kill in 0..kills {
        let clients: Vec<Client> = players.iter().map(|_| daemon.client()).collect();
        let millis = u64::try_from(moments.pick(120)).unwrap();
        let alternatives: Vec<Option<Model>> = std::thread::scope(|scope| {
            let playing: Vec<_> = players
                .iter_mut()
                .zip(&clients)
                .map(|(player, client)| scope.spawn(|| player.play(client, &layers)))
                .collect();
            std::thread::sleep(Duration::from_millis(millis));
            daemon.stop(Signal::SIGKILL);
            playing.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        daemon.restart();
        let client = daemon.client();
        let infos = client.list(&[]).unwrap();
        for (player, alternative) in players.iter_mut().zip(alternatives) {
            let prefix = format!("ns{}/", player.number);
            let mine = |name: &str| name.starts_with(&prefix) || player.model.contains_key(name);
            let real: Model = infos
                .iter()
                .filter(|info| {
                    let target = info.labels.get("containerd.io/snapshot.ref").map_or("", String::as_str);
                    let is_known = |model: &Model| model.keys().any(|name| name.split('@').next() == Some(target));
                    mine(&info.name) || is_known(&player.model) || alternative.as_ref().is_some_and(is_known)
                })
                .map(|info| (info.name.clone(), known(info.kind, &info.parent, &info.labels)))
                .collect();
            let (found, expected) = (model_lines(&real), model_lines(&player.model));
            let other = alternative.as_ref().map(model_lines);
            assert!(
                found == expected || Some(&found) == other.as_ref(),
                "SEED={seed}, kill {kill}: lost {:?}, unexpected {:?}",
                expected.difference(&found).collect::<Vec<_>>(),
                found.difference(&expected).collect::<Vec<_>>()
            );
            player.model = real;
        }
        let total: usize = players.iter().map(|player| player.model.len()).sum();
        assert_eq!(infos.len(), total, "SEED={seed}, kill {kill}: nothing belongs to nobody");
        for info in infos.iter().filter(|info| info.kind != COMMITTED) {
            client.mounts(&info.name).unwrap_or_else(|e| panic!("SEED={seed}, kill {kill}: {}: {e:?}", info.name));
        }
        client.cleanup().unwrap();
        // A view of something has no directory of its own.
        let without = infos.iter().filter(|info| info.kind == VIEW && !info.parent.is_empty()).count();
        assert_eq!(daemon.ids().len(), infos.len() - without, "SEED={seed}, kill {kill}: no orphan is left");
    }
    let snapshots: usize = players.iter().map(|player| player.model.len()).sum();
    println!("{kills} kills, {snapshots} snapshots at the end");
}
