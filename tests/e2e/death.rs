//! Each state of a repository that breaks under running containers and comes back: what is new, what depends on it and
//! what does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::{Node, Release};
use crate::remote::busy_image;
use testkit::inside::prints;
use testkit::{Entry, Image, ImageSite, Kind, Output, Sandbox, Written, has_fuse, wait_until};

/// containerd's limit for a call to a snapshotter does not exist: ours is what bounds a client's wait. Some seconds of
/// this are the client's own, on a machine busy with other tests.
const ANSWER: Duration = Duration::from_secs(30);

/// What `containers` says, by the name of the container.
fn health(node: &Node<'_>, name: &str, options: &[&str]) -> Option<Value> {
    let lines = node.daemon.run(&[&["containers", "--json"][..], options].concat()).ok();
    let mut containers = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    containers.find(|container| container["name"] == name)
}

#[track_caller]
fn assert_health(node: &Node<'_>, name: &str, state: &str) {
    let mut last = None;
    // The kernel may answer from what it has cached for a second.
    let right = wait_until(Duration::from_secs(10), || {
        last = health(node, name, &[]);
        last.as_ref().is_some_and(|container| container["health"]["state"] == state)
    });
    assert!(right, "{name} is not {state}: {last:?}");
    assert_eq!(health(node, name, &["--dead"]).is_some(), state != "alive", "{name}");
}

fn start(node: &Node<'_>, name: &str, reference: &str) {
    node.nerdctl(&["run", "-d", "--network=none", "--name", name, reference, "sleep", "10000"]).ok();
}

/// What a command of a client left behind, which has to end in time.
#[track_caller]
fn in_time(node: &Node<'_>, args: &[&str]) -> Output {
    let begin = Instant::now();
    let output = node.nerdctl(args);
    assert!(begin.elapsed() < ANSWER, "{:?}: {output}", begin.elapsed());
    output
}

/// A command fails, and the client says why and where, in time.
#[track_caller]
fn assert_refused(node: &Node<'_>, site: &ImageSite, args: &[&str], cause: &str) {
    let message = in_time(node, args).err();
    let path = site.path().to_string_lossy();
    for part in [cause, "test.cern.ch", &path] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// A state that a repository can be in (cf. `remote/states.rs`).
struct State {
    name: &'static str,
    /// What is said of the repository.
    cause: &'static str,
    breaks: fn(&mut ImageSite, &[&String]),
    mends: fn(&mut ImageSite, &[&String]),
    /// Whether what was used before still works.
    serves_loaded: bool,
    /// What `containers` says meanwhile of one that depends on it, and whether that one recovers by itself.
    health: &'static str,
    recovers: bool,
}

const STATES: [State; 6] = [
    State {
        name: "offline",
        cause: "cannot read its data",
        breaks: |site, _| site.mock().fail("EIO"),
        mends: |site, _| site.mock().fail("none"),
        serves_loaded: true,
        health: "alive",
        recovers: true,
    },
    State {
        name: "hung",
        cause: "does not answer",
        breaks: |site, _| site.mock().hang(),
        mends: |site, _| site.mock().unhang(),
        serves_loaded: false,
        health: "hung",
        recovers: true,
    },
    State {
        name: "vanished",
        cause: "does not have it",
        breaks: |site, layers| site.hide(layers.iter().copied()),
        mends: |site, layers| site.show(layers.iter().copied()),
        serves_loaded: false,
        health: "alive",
        recovers: true,
    },
    State {
        name: "unreachable",
        cause: "cannot read its data",
        breaks: |site, layers| {
            // Also for what the kernel remembers, which another revision makes it forget.
            site.hide(layers.iter().copied());
            site.show(layers.iter().copied());
            site.mock().command(json!({ "cmd": "fail", "errno": "EIO", "loaded": true }));
        },
        mends: |site, _| site.mock().fail("none"),
        serves_loaded: false,
        health: "failed",
        recovers: true,
    },
    State {
        name: "unmounted",
        cause: "is not mounted",
        breaks: |site, _| site.mock().unmount(),
        mends: |site, _| site.mock().remount(),
        serves_loaded: false,
        health: "alive",
        recovers: true,
    },
    State {
        name: "dead",
        cause: "is disconnected",
        breaks: |site, _| site.mock().kill(),
        mends: |site, _| site.mock().remount(),
        serves_loaded: false,
        health: "dead",
        recovers: false,
    },
];

/// Images that are first pulled in one of the states.
struct New {
    /// With a chain of its own.
    other: (String, Written),
    /// On the base of the image that is used in place.
    upon: (String, Written),
}

impl New {
    fn publish(site: &ImageSite, state: &str) -> Self {
        let publish = |kind: &str, image: &Image| {
            let name = format!("test/{kind}-{state}:1");
            (site.registry.reference(&name), site.publish(&name, image))
        };
        let file = || vec![Entry::file("new", state)];
        Self {
            other: publish("other", &Image::busybox().below(vec![Entry::file("below", state)]).layer(file())),
            upon: publish("upon", &Image::busybox().layer(file())),
        }
    }
}

fn breaks(release: Release) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut site = ImageSite::new(&sandbox, Kind::Cvmfs);
    let node = Node::start(&sandbox, release, &site);
    // Downloaded: it has to live on.
    let local = Image::busybox().below(vec![Entry::file("below", "")]).layer(vec![Entry::file("local", "data")]);
    let local = site.publish("test/local:1", &local);
    let in_place = site.publish("test/box:1", &busy_image());
    let news: Vec<New> = STATES.iter().map(|state| New::publish(&site, state.name)).collect();
    let [in_place_image, local_image] = ["box", "local"].map(|name| site.registry.reference(&format!("test/{name}:1")));
    let local_layers: Vec<&String> = local.layers.iter().map(|layer| &layer.digest).collect();
    site.hide(local_layers.iter().copied());
    site.registry.withhold_nothing();
    node.pull(&local_image);
    site.show(local_layers.iter().copied());
    site.registry.withhold_layers().expect("the layers of the layout");
    site.registry.forget();
    node.pull(&in_place_image);
    assert_eq!(site.asked_for(&in_place), [0; 0]);
    start(&node, "depends", &in_place_image);
    start(&node, "local", &local_image);
    node.nerdctl(&["exec", "depends", "sh", "-c", "echo data >/data/written"]).ok();
    assert_health(&node, "depends", "alive");
    let depends = health(&node, "depends", &[]).expect("listed");
    assert_eq!(depends["repositories"], json!(["test.cern.ch"]), "{depends}");
    assert_eq!(depends["namespace"], node.containerd.namespace(), "{depends}");
    // One occurs twice.
    assert_eq!(depends["layers-in-place"], in_place.layers.len() - 1, "{depends}");
    assert_eq!(health(&node, "local", &[]), None, "it uses no repository");

    for (state, new) in STATES.iter().zip(&news) {
        println!("{}", state.name);
        let images = [&in_place, &new.other.1, &new.upon.1];
        let layers: Vec<&String> = images.iter().flat_map(|image| &image.layers).map(|layer| &layer.digest).collect();
        (state.breaks)(&mut site, &layers);
        assert_health(&node, "depends", state.health);
        check_broken(&node, &site, state, new, [&in_place_image, &local_image]);
        (state.mends)(&mut site, &layers);
        check_mended(&node, &site, new, &in_place_image);
        if !state.recovers {
            assert_health(&node, "depends", state.health);
            node.nerdctl(&["restart", "--time=1", "depends"]).ok();
        }
        assert_health(&node, "depends", "alive");
        node.exec("depends", &prints("data", &["cat", "/data/written"]));
    }
}

/// What is new is downloaded, what depends on the repository is refused, and the rest goes on.
fn check_broken(node: &Node<'_>, site: &ImageSite, state: &State, images: &New, [in_place, local]: [&str; 2]) {
    let new = prints(state.name, &["cat", "/new"]);
    let in_new_container = |reference, command: &[&str]| {
        let run = ["run", "--rm", "--network=none", reference];
        in_time(node, &[&run[..], command].concat())
    };
    let New { other: (other, written), upon: (upon, _) } = images;
    let top = &written.layers[2].digest;
    // Nowhere to download from: the registry's refusal is the answer.
    let message = in_time(node, &["pull", "--quiet", other]).err();
    assert!(message.contains("not found") && message.contains("sha256:"), "{message}");
    site.registry.withhold_nothing();
    in_time(node, &["pull", "--quiet", other]).ok();
    assert!(site.registry.asked_for(top) > 0, "{:?}", site.registry.accesses());
    let log = node.daemon.log();
    let said = |line: &str| ["layer is downloaded", top, state.cause].iter().all(|part| line.contains(part));
    assert!(log.lines().any(said), "{top}");
    in_new_container(other, &new).ok();

    if state.serves_loaded {
        in_new_container(in_place, &prints("above", &["cat", "/data/opaque/new"])).ok();
    } else {
        assert_refused(node, site, &["pull", "--quiet", upon], state.cause);
        assert_refused(node, site, &["run", "--rm", "--network=none", in_place, "true"], state.cause);
    }
    in_time(node, &["ps"]).ok();
    let holds_data = prints("data", &["cat", "/local"]);
    in_time(node, &[&["exec", "local"], &holds_data[..]].concat()).ok();
    in_new_container(local, &holds_data).ok();
    if state.health == "dead" {
        let table = node.daemon.run(&["containers", "--dead"]).ok();
        assert!(table.contains("depends") && table.contains("nerdctl restart"), "{table}");
    }
}

/// Everything works, with nothing restarted, and nothing is downloaded.
fn check_mended(node: &Node<'_>, site: &ImageSite, new: &New, in_place: &str) {
    let (upon, written) = &new.upon;
    let top = &written.layers[1].digest;
    site.registry.withhold_layers().expect("the layers of the layout");
    let pulls = || node.nerdctl(&["pull", "--quiet", upon]).status.success();
    assert!(wait_until(ANSWER, pulls), "{}", node.nerdctl(&["pull", upon]));
    let log = node.daemon.log();
    let said = |line: &str| ["layer is used in place", top].iter().all(|part| line.contains(part));
    assert!(log.lines().any(said), "{top}");
    node.run(upon, &["test", "-s", "/new"]);
    node.run(in_place, &prints("above", &["cat", "/data/opaque/new"]));
}

#[test]
fn the_repository_breaks_and_comes_back() {
    breaks(Release::New);
}

#[test]
fn the_repository_breaks_and_comes_back_with_containerd_1_6() {
    breaks(Release::Old);
}
