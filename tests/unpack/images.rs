//! Which images are read, and which of several is taken.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bench::{Bench, TestLayer, simple, tree};
use crate::entries::{archive, file};
use crate::gnu_tar::gnu_tar;

#[test]
fn an_archive_is_as_good_as_a_directory() {
    need_root!();
    let layers = [simple(), TestLayer::gzip(&archive(&[file("x", "x")]))];
    let bench = Bench::new(&layers);
    bench.unpack();
    let expected = layers.each_ref().map(|layer| tree(&bench.layerfs(layer)));
    for (options, name) in
        [("-cf", "plain.tar"), ("-czf", "gzip.tar.gz"), ("-cf", "dotted.tar"), ("--zstd -cf", "zstd.tar")]
    {
        let tar = bench.path(name);
        let what = if name == "dotted.tar" { vec!["."] } else { vec!["index.json", "blobs", "oci-layout"] };
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.push(tar.to_str().unwrap());
        arguments.extend(what);
        gnu_tar(&arguments, &bench.image());
        fs::remove_dir_all(bench.path("repository")).unwrap();
        let output = bench.command(&tar).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(layers.each_ref().map(|layer| tree(&bench.layerfs(layer))) == expected, "{name}");
        assert_eq!(bench.staging(), [""; 0]);
    }
}

#[test]
fn images_are_chosen_by_name_and_platform() {
    need_root!();
    let layers: Vec<TestLayer> = (0..3).map(|i| TestLayer::gzip(&archive(&[file("n", &i.to_string())]))).collect();
    let bench = Bench::new(&[]);
    let mut amd = bench.add_image(&layers[..1], "linux", "amd64");
    let mut arm = bench.add_image(&layers[1..2], "linux", "arm64");
    arm["platform"]["variant"] = json!("v8");
    let nested = json!({ "schemaVersion": 2, "manifests": [amd, arm] }).to_string();
    let nested = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": format!("sha256:{}", bench.blob(nested.as_bytes())),
        "size": nested.len(),
        "annotations": { "org.opencontainers.image.ref.name": "first" },
    });
    let mut second = bench.add_image(&layers[2..], "linux", "amd64");
    second["annotations"] = json!({ "io.containerd.image.name": "example/second:1" });
    amd["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    amd["digest"] = json!(format!("sha256:{}", "cd".repeat(32)));
    amd["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    bench.write_index(&[nested, second, amd]);
    let message = bench.refuse(&["--platform", "linux/amd64"]);
    assert!(message.contains("several images fit") && message.contains("example/second:1"), "{message}");
    let message = bench.refuse(&["--platform", "linux/s390x"]);
    assert!(
        message.contains("no image here fits linux/s390x") && message.contains("linux/arm64/v8  first"),
        "{message}"
    );
    assert!(bench.refuse(&["--platform", "linux"]).contains("is not a platform"));
    bench.assert_nothing_appeared();
    for (arguments, chosen) in [
        (["--platform", "linux/arm64"].as_slice(), 1),
        (&["--platform", "linux/amd64", "--ref", "first"], 0),
        (&["--ref", "example/second:1"], 2),
    ] {
        assert!(!bench.layerfs(&layers[chosen]).exists());
        assert!(bench.run(arguments).status.success());
        assert!(bench.layerfs(&layers[chosen]).exists());
    }
}

#[test]
fn what_cannot_be_unpacked_is_said_in_words() {
    need_root!();
    let layer = simple();
    // Not there, not an image, docker's format.
    let bench = Bench::new(std::slice::from_ref(&layer));
    let message = |image: &Path| String::from_utf8(bench.command(image).output().unwrap().stderr).unwrap();
    assert!(message(&bench.path("missing")).contains("No such file"));
    assert!(!bench.path("repository").exists(), "a wrong name makes nothing");
    fs::write(bench.path("text"), "text").unwrap();
    assert!(message(&bench.path("text")).contains("not an OCI layout"));
    fs::write(bench.path("docker.tar"), archive(&[file("manifest.json", "[]")])).unwrap();
    assert!(message(&bench.path("docker.tar")).contains("skopeo copy docker-archive:"));
    fs::create_dir(bench.path("dir")).unwrap();
    fs::write(bench.path("dir/manifest.json"), "{}").unwrap();
    assert!(message(&bench.path("dir")).contains("skopeo copy dir:"));
    // A layer that is not in the copy.
    let blob = bench.image().join("blobs/sha256").join(&layer.digest);
    fs::remove_file(&blob).unwrap();
    assert!(bench.refuse(&[]).contains("the copy is not complete"));
    let foreign =
        TestLayer { media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ..layer.clone() };
    let bench = Bench::new(&[foreign]);
    bench.unpack();
    fs::remove_dir_all(bench.path("repository")).unwrap();
    fs::remove_file(bench.image().join("blobs/sha256").join(&layer.digest)).unwrap();
    assert!(bench.refuse(&[]).contains("non-distributable"));
    // A damaged manifest.
    let bench = Bench::new(std::slice::from_ref(&layer));
    let index: Value = serde_json::from_slice(&fs::read(bench.image().join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    fs::write(bench.image().join("blobs/sha256").join(manifest), "{}").unwrap();
    assert!(bench.refuse(&[]).contains("manifest is damaged"));
    bench.assert_nothing_appeared();
}
