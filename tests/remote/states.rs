//! The states of a repository: what a layer that is wanted and a chain that depends on it get, and that it recovers
//! without a restart.

use containerd_snapshots::tonic::Code;

use crate::{assert_unavailable, none, published, pull_in_place, top};
use testkit::{Chain, Daemon, Layer, Mounted, Namespace, Site, Style, eventually};

/// Breaks the repository and mends it again.
fn check(mut site: Site, cause: &str, breaks: impl Fn(&mut Site, &Chain), mends: impl Fn(&mut Site, &Chain)) {
    let image = published(&site);
    let other = Layer::new("other", &[("o", "o")]);
    site.publish(&other);
    let daemon = Daemon::start(&site.short_limits());
    let client = daemon.client();
    let pulled = pull_in_place(&client, &image);
    client.prepare("k", top(&pulled), &none()).unwrap();
    client.view("v", top(&pulled), &none()).unwrap();
    breaks(&mut site, &image);

    // Wanted: downloaded. With what was never asked for, and with what is held.
    let mut late = Namespace::new(&client, "late", Style::New);
    assert_eq!(late.in_place(&Chain::new("other", &[&image.layers[2], &image.layers[0]])), [false, false]);
    assert_eq!(late.in_place(&image)[..1], [false]);
    // Depended on: an error that says what to do.
    assert_unavailable(client.prepare("k2", top(&pulled), &none()), &image.layers, &site, cause);
    assert_unavailable(client.view("v2", top(&pulled), &none()), &image.layers, &site, cause);
    assert_unavailable(client.mounts("k"), &image.layers, &site, cause);
    assert_unavailable(client.mounts("v"), &image.layers, &site, cause);
    assert_eq!(client.stat("k2").unwrap_err().code(), Code::NotFound);
    // What does not depend on it goes on.
    client.committed("local", "");
    client.prepare("local k", "local", &none()).unwrap();
    client.mounts("local k").unwrap();

    mends(&mut site, &image);
    eventually("it recovers", || client.mounts("k").is_ok());
    assert_eq!(
        Mounted::new(&client.view("v3", top(&pulled), &none()).unwrap()).tree(),
        ["b", "c", "etc/", "etc/passwd"]
    );
    let again = Namespace::new(&client, "again", Style::Old)
        .pull(&Chain::new("again", &image.layers.iter().collect::<Vec<_>>()));
    assert_eq!(again, pulled, "held as before");
    assert_eq!(Namespace::new(&client, "again", Style::Old).in_place(&Chain::new("other", &[&other])), [true]);
}

on_both! {
    fn not_mounted(kind) {
        let Some(site) = Site::new(kind) else { return };
        check(site, "is not mounted", |site, _| site.unmount(), |site, _| site.remount());
    }

    fn client_killed_while_nobody_unmounts(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        check(site, "is disconnected", |site, _| site.mock.as_mut().unwrap().kill(), |site, _| site.remount());
    }

    fn hung(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        check(site, "does not answer", |site, _| site.mock().hang(), |site, _| site.mock().unhang());
    }

    fn input_output_error(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let fail = |site: &mut Site, image: &Chain| {
            // Also for what the kernel remembers, which the present revision makes it forget.
            let mock = site.mock();
            image.layers.iter().for_each(|layer| mock.hide(&layer.digest));
            image.layers.iter().for_each(|layer| mock.show(&layer.digest));
            mock.command(serde_json::json!({ "cmd": "fail", "errno": "EIO", "loaded": true }));
        };
        check(site, "cannot read its data", fail, |site, image| {
            site.mock().fail("none");
            image.layers.iter().for_each(|layer| site.mock().show(&layer.digest));
        });
    }

    fn layer_vanished(kind) {
        let Some(site) = Site::new(kind) else { return };
        let all = |site: &Site, image: &Chain, hide: bool| {
            image.layers.iter().for_each(|layer| if hide { site.hide(layer) } else { site.show(layer) });
        };
        check(site, "does not have it", |site, image| all(site, image, true), |site, image| all(site, image, false));
    }
}
