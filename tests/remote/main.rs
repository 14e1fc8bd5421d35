//! Layers in repositories: found, missing, vanished, hung, wrong, and found again. Each test runs on a repository of
//! either kind; what a plain directory cannot do (hang, die) is done with one on FUSE that is configured as `directory`.

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

/// A test on both kinds of repository.
macro_rules! on_both {
    ($(fn $name:ident($kind:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything")]
            use super::*;

            fn run($kind: testkit::Kind) $body

            #[test]
            fn directory() {
                run(testkit::Kind::Directory);
            }

            #[test]
            fn cvmfs() {
                run(testkit::Kind::Cvmfs);
            }
        }
    )*};
}

mod automount;
mod chain_ids;
mod decisions;
mod derived;
mod hung;
mod large;
mod life;
mod markers;
mod overlays;
mod states;

use containerd_snapshots::tonic::{Code, Status};

use testkit::{Chain, Client, Labels, Layer, Namespace, Pulled, Site, Style};

/// Three layers that are published, as an image.
fn published(site: &Site) -> Chain {
    let layers = [
        Layer::new("a", &[("etc/passwd", "root"), ("a", "a")]),
        Layer::new("b", &[("b", "b"), (".wh.a", "")]),
        Layer::new("c", &[("c", "c")]),
    ];
    layers.iter().for_each(|layer| site.publish(layer));
    Chain::new("abc", &[&layers[0], &layers[1], &layers[2]])
}

/// Pulls an image of which every layer is used in place; the name of its top.
fn pull_in_place(client: &Client, image: &Chain) -> Vec<Pulled> {
    let pulled = Namespace::new(client, "default", Style::New).pull(image);
    assert!(pulled.iter().all(|layer| layer.in_place), "{pulled:?}");
    pulled
}

fn top(pulled: &[Pulled]) -> &str {
    &pulled.last().unwrap().name
}

/// An answer that a layer cannot be used: it says which, where, why, and what to do.
#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, Status>, layers: &[Layer], site: &Site, cause: &str) {
    let status = result.unwrap_err();
    let message = status.message();
    assert_eq!(status.code(), Code::Unavailable, "{message}");
    assert!(layers.iter().any(|layer| message.contains(&layer.digest)), "{message}");
    assert!(message.contains("\"main\""), "{message}");
    assert!(message.contains(site.path().to_str().unwrap()), "{message}");
    assert!(message.contains(cause), "{message}");
    assert!(message.contains("remedy: "), "{message}");
}

fn none() -> Labels {
    Labels::new()
}
