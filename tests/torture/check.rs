//! The daemon after a crash, compared with the model.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::{COMMITTED, Content, Known, Model, Pending, VIEW, id_in_place};
use crate::random_client::Run;
use crate::reader;
use testkit::layer_model::disk;
use testkit::layer_model::{File, Layer, What, merged};
use testkit::{Client, Daemon, Labels, Mounted, names, upper};

/// Panics unless all that was acknowledged is there, nothing else is, and what is looked at has the right files.
///
/// `share`: of the snapshots whose files are looked at, in percent.
pub(crate) fn check(
    run: &Run<'_>,
    daemon: &Daemon,
    pending: &[Pending],
    random: &mut fastrand::Rng,
    share: u8,
    moment: &str,
) {
    let client = daemon.client();
    let listed = client.list(&[]).unwrap();
    let mut model = run.model.lock().unwrap();
    model.rest();
    let settled = model.settle(pending, &listed).unwrap_or_else(|wrong| panic!("{moment}: {wrong}"));
    {
        let mut table = run.table.lock().unwrap();
        table.count("requests under way that had happened", settled.happened);
        table.count("requests under way that had not", settled.did_not);
    }
    for (key, file) in &settled.uncertain {
        let mounts = client.mounts(key).unwrap_or_else(|status| panic!("{moment}: {key}: {status}"));
        let upper = upper(&mounts);
        let _ = std::fs::remove_file(upper.join(file));
        // Or the next cut brings it back.
        std::fs::File::open(&upper).and_then(|upper| upper.sync_all()).unwrap();
    }
    model.see_ids(|key| client.mounts(key).unwrap_or_else(|status| panic!("{moment}: Mounts of {key}: {status}")));
    for (name, known) in &mut model.snapshots {
        let usage = client.usage(name).unwrap_or_else(|status| panic!("{moment}: Usage of {name}: {status}"));
        known.see_usage(usage).unwrap_or_else(|wrong| panic!("{moment}: {name}: {wrong}"));
    }
    let known = model.snapshots.iter().filter(|(_, known)| !matches!(known.content, Content::Unknown));
    let looked_at: Vec<_> = known.filter(|_| random.u8(..100) < share).collect();
    // The clean-up must take nothing that a mount needs, and nothing may need it.
    let (before, after): (Vec<_>, Vec<_>) = looked_at.into_iter().partition(|_| random.bool());
    let compare_all = |snapshots: &[(&String, &Known)]| {
        for (name, known) in snapshots {
            let layers = model.layers(name).expect("all is known");
            let compare = if known.kind == COMMITTED { compare_view } else { compare };
            let result = compare(&client, name, &layers);
            result.unwrap_or_else(|wrong| panic!("{moment}: {name}: {wrong}\n{}", daemon.log()));
        }
        run.table.lock().unwrap().count("trees compared", snapshots.len() as u64);
    };
    compare_all(&before);
    client.cleanup().unwrap();
    check_directories(daemon, &model, run.sync).unwrap_or_else(|wrong| panic!("{moment}: {wrong}\n{}", daemon.log()));
    compare_all(&after);
}

/// What may be in the directory of a layer in place.
pub(crate) const OF_LAYER: &[&str] = &["fs", "c", "s", "e", "plan"];

/// Other names in a directory than these.
pub(crate) fn others(directory: &Path, known: &[&str]) -> Vec<String> {
    names(directory).into_iter().filter(|name| !known.contains(&name.as_str())).collect()
}

/// Whether a clean-up has left nothing but what belongs to a snapshot. `was_cut`: the disk may have lost what can be made
/// again.
fn check_directories(daemon: &Daemon, model: &Model, was_cut: bool) -> Result<(), String> {
    let only = |directory: &Path, known: &[&str]| {
        let mut others = others(directory, known);
        // One that was replaced, which a container may use.
        others.retain(|name| !(was_cut && name.strip_prefix('.').is_some_and(|number| number.parse::<u64>().is_ok())));
        if others.is_empty() { Ok(()) } else { Err(format!("left over in {}: {others:?}", directory.display())) }
    };
    only(&daemon.root(), &["metadata.redb", "reserve", "snapshots", "trash"])?;
    only(&daemon.root().join("trash"), &[])?;
    let mut found: BTreeSet<u64> = daemon.ids().into_iter().collect();
    for (name, known) in &model.snapshots {
        let in_place = id_in_place(name);
        let (id, files) = match (in_place, known.kind) {
            (Some(id), _) => (id, OF_LAYER),
            (None, VIEW) if !known.parent.is_empty() => continue,
            (None, VIEW) => (known.id.expect("seen"), &["fs"][..]),
            (None, _) => (known.id.expect("seen"), &["fs", "work"][..]),
        };
        if found.remove(&id) {
            only(&daemon.snapshots().join(id.to_string()), files)?;
        } else if in_place.is_none() || !was_cut {
            return Err(format!("{name} has no directory {id}"));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("directories of no snapshot: {found:?}")) }
}

/// Compares a committed snapshot by means of a view, which is removed again.
fn compare_view(client: &Client, name: &str, layers: &[Layer]) -> Result<(), String> {
    const KEY: &str = "check/1/view";
    client.view(KEY, name, &Labels::new()).map_err(|status| format!("View: {status}"))?;
    let result = compare(client, KEY, layers);
    client.remove(KEY).map_err(|status| format!("Remove: {status}"))?;
    result
}

/// Compares what a mount shows, and what containerd reads without one.
fn compare(client: &Client, key: &str, layers: &[Layer]) -> Result<(), String> {
    let mounts = client.mounts(key).map_err(|status| format!("Mounts: {status}"))?;
    let expected = merged(layers).unwrap_or_else(empty);
    reader::compare(&mounts, layers, &expected)?;
    disk::compare("mounted", &expected, Mounted::new(&mounts).path(), true)
}

fn empty() -> File {
    File { mode: 0o755, uid: 0, gid: 0, mtime: 1, what: What::Dir(Default::default()) }
}
