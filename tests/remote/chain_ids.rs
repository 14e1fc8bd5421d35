//! A layer in place is the one that the chain ID names.

use containerd_snapshots::tonic::Code;

use crate::none;
use testkit::{Chain, Daemon, Layer, Mounted, Namespace, Settings, Site, Style, lowers};

fn settings(site: &Site, verify: &str) -> Settings {
    let repositories = vec![site.entry("main", &format!("verify = '{verify}'"))];
    Settings { repositories, ..Settings::default() }
}

on_both! {
    fn recorded_wrong_and_not_recorded(kind) {
        let Some(site) = Site::new(kind) else { return };
        let right = Layer::new("right", &[("x", "x")]);
        site.publish(&right);
        let wrong = Layer::new("wrong", &[("x", "x")]);
        wrong.publish_without_record(site.backing());
        wrong.record(site.backing(), &right.diff_id);
        site.published(&wrong);
        let old = Layer::new("old", &[("x", "x")]);
        old.publish_without_record(site.backing());
        site.published(&old);
        for (verify, expected) in [
            ("if-known", [true, false, true]),
            ("required", [true, false, false]),
            ("off", [true, true, true]),
        ] {
            let daemon = Daemon::start(&settings(&site, verify));
            let client = daemon.client();
            for (layer, expected) in [&right, &wrong, &old].into_iter().zip(expected) {
                for style in [Style::Old, Style::New] {
                    let image = Chain::new("i", &[layer]);
                    let got = Namespace::new(&client, &format!("{style:?}"), style).in_place(&image);
                    assert_eq!(got, [expected], "{verify} {style:?} {layer:?}");
                    // On top of a layer whose chain ID is known.
                    let image = Chain::new("j", &[&right, layer]);
                    let got = Namespace::new(&client, &format!("{style:?}"), style).in_place(&image);
                    assert_eq!(got, [true, expected], "{verify} {style:?} {layer:?}");
                }
            }
            if verify == "if-known" {
                assert!(!daemon.lines(&["layer is downloaded", &wrong.digest, "diff ID"]).is_empty());
            }
        }
    }

    fn the_same_diff_ids_with_other_layers_change_no_other_image(kind) {
        let Some(site) = Site::new(kind) else { return };
        let good = Layer::new("good", &[("etc/passwd", "good")]);
        let evil = Layer { diff_id: good.diff_id.clone(), ..Layer::new("evil", &[("etc/passwd", "evil")]) };
        let (good_image, evil_image) = (Chain::new("good", &[&good]), Chain::new("evil", &[&evil]));
        assert_eq!(good_image.ids(), evil_image.ids());
        // Each is published by itself, with or without a record of what it is.
        for with_record in [true, false] {
            site.publish(&good);
            evil.publish_without_record(site.backing());
            if with_record {
                evil.record(site.backing(), &testkit::sha256("diff evil"));
            } else {
                for layer in [&good, &evil] {
                    let _ = std::fs::remove_dir_all(site.holder(layer).join(".metadata"));
                }
            }
            site.published(&evil);
            for order in [[&evil_image, &good_image], [&good_image, &evil_image]] {
                let daemon = Daemon::start(&site.settings());
                let client = daemon.client();
                for (index, image) in order.into_iter().enumerate() {
                    let mut namespace = Namespace::new(&client, &format!("n{index}"), Style::New);
                    let pulled = namespace.pull(image);
                    let mounts = client.prepare(&format!("k{index}"), &pulled[0].name, &none()).unwrap();
                    let seen = Mounted::new(&mounts).read("etc/passwd");
                    // What the other one gets is its own affair; without a record nobody can tell.
                    if image.reference == good_image.reference {
                        assert_eq!(seen.as_deref(), Some("good"), "{with_record} {index}");
                    } else {
                        assert!(!(pulled[0].in_place && with_record) || seen.as_deref() == Some("good"));
                    }
                }
            }
        }
    }

    fn one_content_under_two_digests_is_held_once_where_that_is_recorded(kind) {
        let Some(site) = Site::new(kind) else { return };
        let layer = Layer::new("a", &[("x", "x")]);
        // The same tar, compressed otherwise.
        let other = Layer { diff_id: layer.diff_id.clone(), ..Layer::new("b", &[("x", "x")]) };
        site.publish(&layer);
        site.publish(&other);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let first = Namespace::new(&client, "one", Style::New).pull(&Chain::new("i", &[&layer]));
        let second = Namespace::new(&client, "two", Style::New).pull(&Chain::new("j", &[&other]));
        assert!(first[0].in_place && first == second, "{first:?} {second:?}");
    }

    fn what_is_held_is_looked_at_again_where_a_record_becomes_required(kind) {
        let Some(site) = Site::new(kind) else { return };
        let (old, right) = (Layer::new("old", &[("x", "x")]), Layer::new("right", &[("y", "y")]));
        old.publish_without_record(site.backing());
        site.published(&old);
        site.publish(&right);
        let images = [Chain::new("old", &[&old]), Chain::new("right", &[&right])];
        let mut daemon = Daemon::start(&settings(&site, "if-known"));
        for (verify, expected) in [("if-known", true), ("required", false), ("off", true)] {
            daemon.configure(&settings(&site, verify));
            daemon.restart();
            let client = daemon.client();
            let mut namespace = Namespace::new(&client, verify, Style::New);
            assert_eq!(namespace.in_place(&images[0]), [expected], "{verify}");
            assert_eq!(namespace.in_place(&images[1]), [true], "{verify}");
        }
    }

    fn without_the_parents_chain_id_a_layer_is_used_unless_that_is_required(kind) {
        let Some(site) = Site::new(kind) else { return };
        let (base, layer) = (Layer::new("base", &[]), Layer::new("layer", &[("x", "x")]));
        site.publish(&layer);
        let image = Chain::new("i", &[&base, &layer]);
        for (verify, style, expected) in [
            ("if-known", Style::Old, true),
            ("if-known", Style::New, true),
            ("required", Style::Old, false),
            ("required", Style::New, true),
        ] {
            let daemon = Daemon::start(&settings(&site, verify));
            let client = daemon.client();
            // Unpacked by a client that sends no labels.
            client.committed("default/1/base", "");
            let key = testkit::extract_key("default", 2, &image.ids()[1]);
            let answer = client.prepare(&key, "default/1/base", &image.labels(1, style));
            assert_eq!(answer.is_err(), expected, "{verify} {style:?}");
            if let Ok(mounts) = answer {
                assert_eq!(lowers(&mounts).len(), 1);
            }
        }
    }

    fn a_repository_that_was_refused_does_not_step_in_for_the_right_one(kind) {
        let Some(other) = Site::new(kind) else { return };
        let Some(right) = Site::new(kind) else { return };
        let layer = Layer::new("a", &[("x", "right")]);
        right.publish(&layer);
        let wrong = Layer { files: vec![("x".to_owned(), "wrong".to_owned())], ..layer.clone() };
        wrong.publish_without_record(other.backing());
        wrong.record(other.backing(), &testkit::sha256("diff wrong"));
        other.published(&wrong);
        let repositories = vec![other.entry("other", ""), right.entry("right", "")];
        let daemon = Daemon::start(&Settings { repositories, ..Settings::default() });
        let client = daemon.client();
        let pulled = Namespace::new(&client, "default", Style::New).pull(&Chain::new("i", &[&layer]));
        assert!(pulled[0].in_place, "{}", daemon.log());
        right.hide(&layer);
        let refused = client.prepare("k1", &pulled[0].name, &none()).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("diff ID"), "{refused:?}");
        right.show(&layer);
        // Also where the link is lost.
        for id in daemon.ids() {
            std::fs::remove_dir_all(daemon.snapshots().join(id.to_string())).unwrap();
        }
        let mounts = client.prepare("k2", &pulled[0].name, &none()).unwrap();
        assert_eq!(Mounted::new(&mounts).read("x").as_deref(), Some("right"));
    }

    fn of_two_layers_for_one_target_at_one_time_none_is_taken_unproved(kind) {
        let Some(site) = Site::new(kind) else { return };
        let daemon = Daemon::start(&site.settings());
        for round in 0..20 {
            let good = Layer::new(&format!("good {round}"), &[("x", "good")]);
            let evil = Layer::new(&format!("evil {round}"), &[("x", "evil")]);
            let evil = Layer { diff_id: good.diff_id.clone(), ..evil };
            evil.publish_without_record(site.backing());
            site.published(&evil);
            site.publish(&good);
            let together = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for layer in [&good, &evil] {
                    let (daemon, together) = (&daemon, &together);
                    scope.spawn(move || {
                        let client = daemon.client();
                        let name = if layer.digest == good_digest(round) { "good" } else { "evil" };
                        together.wait();
                        let pulled = Namespace::new(&client, &format!("{name}{round}"), Style::New)
                            .pull(&Chain::new(name, &[layer]));
                        if name == "good" {
                            let mounts = client.prepare(&format!("k{round}"), &pulled[0].name, &none()).unwrap();
                            assert_eq!(Mounted::new(&mounts).read("x").as_deref(), Some("good"), "{pulled:?}");
                        }
                    });
                }
            });
        }
    }
}

fn good_digest(round: usize) -> String {
    Layer::new(&format!("good {round}"), &[]).digest
}
