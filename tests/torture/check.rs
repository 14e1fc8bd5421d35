//! The daemon after a crash, compared with the model.

use std::collections::HashSet;

use crate::files;
use crate::model::{File, Layer, What, merged};
use crate::player::Stage;
use crate::reader;
use crate::support::{Client, Daemon, Labels, Mounted, names, upper};
use crate::world::{COMMITTED, Content, Pending, VIEW, id_in_place};

/// Panics unless all that was acknowledged is there, nothing else is, and what is looked at has the right files.
///
/// `share`: of the snapshots whose files are looked at, in percent.
pub(crate) fn check(
    stage: &Stage<'_>,
    daemon: &Daemon,
    pending: &[Pending],
    random: &mut fastrand::Rng,
    share: u8,
    moment: &str,
) {
    let client = daemon.client();
    let listed = client.list(&[]).unwrap();
    let mut world = stage.world.lock().unwrap();
    world.rest();
    let settled = world.settle(pending, &listed).unwrap_or_else(|wrong| panic!("{moment}: {wrong}"));
    {
        let mut table = stage.table.lock().unwrap();
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
    for (name, known) in &world.snapshots {
        let of_container = known.kind != COMMITTED;
        if of_container {
            client.mounts(name).unwrap_or_else(|status| panic!("{moment}: Mounts of {name}: {status}"));
        }
        if matches!(known.content, Content::Unknown) || random.u8(..100) >= share {
            continue;
        }
        let layers = world.layers(name).expect("all is known");
        let result = if of_container { compare(&client, name, &layers) } else { compare_view(&client, name, &layers) };
        result.unwrap_or_else(|wrong| panic!("{moment}: {name}: {wrong}\n{}", daemon.log()));
        stage.table.lock().unwrap().count("trees compared", 1);
    }
    client.cleanup().unwrap();
    let in_place: HashSet<u64> = listed.iter().filter_map(|info| id_in_place(&info.name)).collect();
    // A view of something has no directory of its own. Of a layer in place it is made again when it is needed.
    let of_view = listed.iter().filter(|info| info.kind == VIEW && !info.parent.is_empty()).count();
    let local = daemon.ids().into_iter().filter(|id| !in_place.contains(id)).count();
    let expected = listed.len() - of_view - in_place.len();
    assert_eq!(local, expected, "{moment}: directories without a snapshot, or snapshots without one");
    assert_eq!(names(&daemon.root().join("trash")), [""; 0], "{moment}");
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
    files::compare("mounted", &expected, Mounted::new(&mounts).path(), true)
}

fn empty() -> File {
    File { mode: 0o755, uid: 0, gid: 0, mtime: 1, what: What::Dir(Default::default()) }
}
