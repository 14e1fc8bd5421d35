//! Stores that something else has damaged: the daemon refuses them and says what to do, or gives the right answers. It
//! never panics, never answers something else, and changes nothing of the records in the file that it refuses.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cvmfs_snapshotter::containerd::label::{Labels, TARGET};
use cvmfs_snapshotter::digest::Digest;
use cvmfs_snapshotter::overlay::plan::Plan;
use cvmfs_snapshotter::state::metadata::{Error, Lookup, New, NewKind, OpenError, Snapshot, Store, StoredPlan, Usage};

use crate::{seed, setting};

/// Some seconds.
const FLIPS: u64 = 150;
/// The bytes in which redb has its commit slots.
const HEADER: u64 = 512;
/// Where the slots begin; what is in front has no checksum.
const SLOTS: usize = 64;
/// The bit that says which of the two slots is the newest. Turned, it leads to the state before the last commit, which is
/// what a crash in the middle of that commit leaves: nobody can tell the two apart.
const NEWEST: u64 = 9 * 8;

/// A store with everything in it: chains, layers in place with plans, containers, views, and removed ones.
fn fill(root: &Path, random: &mut fastrand::Rng) -> Store {
    let store = Store::open(root).unwrap();
    let mut committed = vec![String::new()];
    for number in 0..60u64 {
        let parent = random.choice(&committed).unwrap().clone();
        let key = format!("default/{number}/key");
        let target = format!("sha256:{number:064x}");
        let labels = Labels::from([
            (TARGET.to_owned(), target.clone()),
            ("containerd.io/snapshot/filler".to_owned(), "x".repeat(random.usize(..2000))),
        ]);
        let mut plan = Plan::default();
        plan.whiteouts = vec![vec![7; random.usize(..9000)]];
        let plan = StoredPlan::new(format!("{number}"), &plan);
        let layer = Digest::from_bytes([number as u8; 32]);
        let kind = match random.u8(..3) {
            0 => NewKind::Remote { layer, target: &target, plan: &plan },
            1 => NewKind::View,
            _ => NewKind::Active,
        };
        let is_active = matches!(kind, NewKind::Active);
        let new = New { id: store.new_id().unwrap(), key: &key, parent: &parent, labels: labels.clone(), kind };
        store.create(new).unwrap();
        if is_active && random.bool() {
            let name = format!("default/{number}/{target}");
            store.commit(&name, &key, labels, Usage::default()).unwrap();
            committed.push(name);
        } else if random.u8(..4) == 0 {
            // The name of a layer in place is another one; it stays.
            let _ = store.remove(&key);
        }
    }
    store
}

/// Everything that the store can be asked.
fn answers(store: &Store) -> Result<Vec<String>, Error> {
    let reader = store.read()?;
    let all = reader.all()?.collect::<Result<Vec<Snapshot>, _>>()?;
    let mut answers = vec![format!("{all:?}")];
    let parents: BTreeSet<&str> = all.iter().map(|snapshot| snapshot.parent.as_str()).collect();
    let targets = all.iter().filter_map(Snapshot::target).map(|target| Lookup::Target(target.to_owned()));
    let lookups = parents.into_iter().map(|parent| Lookup::Parent(parent.to_owned())).chain(targets);
    for lookup in lookups {
        let found = reader.lookup(std::slice::from_ref(&lookup))?.collect::<Result<Vec<_>, _>>()?;
        answers.push(format!("{lookup:?} {found:?}"));
    }
    for snapshot in &all {
        answers.push(format!("{:?} {}", reader.chain(&snapshot.parent)?, reader.has_id(snapshot.id)?));
        if let Some(layer) = snapshot.remote_layer() {
            answers.push(format!("{:?} {}", reader.plan(layer)?, reader.uses_layer(layer)?));
        }
    }
    Ok(answers)
}

/// What a damaged store does.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Right,
    /// And how.
    Wrong(String),
}

fn outcome(root: &Path, damaged: &[u8], right: &[String]) -> Outcome {
    let path = Store::path(root);
    std::fs::write(&path, damaged).unwrap();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(root)?;
        Ok::<_, OpenError>(answers(&store))
    }));
    match opened {
        Err(_) => Outcome::Wrong("a panic".into()),
        Ok(Err(error @ OpenError::Unreadable { .. })) => {
            let text = error.to_string();
            // redb counts the pages again and notes that in front; what was committed stays as it is.
            let is = std::fs::read(&path).unwrap();
            if is.get(SLOTS..) != damaged.get(SLOTS..) {
                return Outcome::Wrong(format!("the file was changed, but refused: {text}"));
            }
            Outcome::Refused
        }
        Ok(Err(error)) => Outcome::Wrong(format!("it does not say what to do: {error:?}")),
        Ok(Ok(Err(error))) => Outcome::Wrong(format!("it opens, but {error}")),
        Ok(Ok(Ok(answers))) if answers == right => Outcome::Right,
        Ok(Ok(Ok(_))) => Outcome::Wrong("other answers".into()),
    }
}

/// A directory (in memory, as the daemon syncs what it opens), the file as a kill leaves it, as a stop leaves it, and what
/// is in it.
fn store(random: &mut fastrand::Rng) -> (tempfile::TempDir, [Vec<u8>; 2], Vec<String>) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = fill(directory.path(), random);
    let read = || std::fs::read(Store::path(directory.path())).unwrap();
    let right = answers(&store).unwrap();
    let killed = read();
    drop(store);
    let files = [killed, read()];
    (directory, files, right)
}

#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let (flips, seed) = (setting("FLIPS").unwrap_or(FLIPS), seed());
    let mut random = fastrand::Rng::with_seed(seed);
    let (directory, files, right) = store(&mut random);
    let (mut refused, mut unharmed, mut wrong) = (0, 0, Vec::new());
    let first = SLOTS as u64 * 8;
    for flip in (0..flips + first).filter(|flip| *flip != NEWEST) {
        let bytes = random.choice(&files).unwrap();
        let bit = match flip {
            _ if flip < first => flip,
            // Half of the others where the file begins, whose pages are fewer and matter more.
            _ if flip % 2 == 0 => random.u64(first..HEADER * 8),
            _ => random.u64(first..bytes.len() as u64 * 8),
        };
        let mut damaged = bytes.clone();
        damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
        match outcome(directory.path(), &damaged, &right) {
            Outcome::Refused => refused += 1,
            Outcome::Right => unharmed += 1,
            Outcome::Wrong(why) => wrong.push(format!("byte {}, bit {}: {why}", bit / 8, bit % 8)),
        }
    }
    println!("FLIPS={flips} SEED={seed}: {} bytes, {refused} refused, {unharmed} right answers", files[0].len());
    assert_eq!(wrong, Vec::<String>::new(), "SEED={seed}");
}

#[test]
fn a_truncated_store_is_refused() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let (directory, files, right) = store(&mut random);
    for number in 0..100 {
        let bytes = random.choice(&files).unwrap();
        let length = if number < 3 { number } else { random.usize(..bytes.len()) };
        let outcome = outcome(directory.path(), &bytes[..length], &right);
        assert_eq!(outcome, Outcome::Refused, "SEED={seed}, {length} of {} bytes", bytes.len());
    }
}
