//! Everything that a tree can hold, unpacked by us and by GNU tar.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, TestLayer, assert_same_tree};

/// A tree with every kind of entry and the awkward names, owners, modes, times and attributes.
fn furnish(root: &Path) {
    let script = r#"
        set -e
        umask 022
        mkdir -p etc usr/bin sticky setgid empty dev deep .wh..wh.plnk
        echo root > etc/passwd; : > etc/.wh.shadow; : > .wh..wh..opq; : > .wh.gone; : > etc/empty
        echo x > usr/bin/su; chown 0:42 usr/bin/su; chmod 4755 usr/bin/su
        echo y > usr/bin/wall; chmod 2711 usr/bin/wall
        echo z > usr/bin/none; chmod 0 usr/bin/none
        cp usr/bin/wall usr/bin/ping
        chmod 1777 sticky; chown 12:34 setgid; chmod 2775 setgid; chmod 0 empty
        ln -s ../etc/passwd usr/link; ln -s /absolute/target usr/absolute; ln -s nowhere usr/dangling
        chown -h 77:88 usr/link; touch -h -d '2001-02-03 04:05:06.789' usr/link
        ln etc/passwd etc/passwd2; ln usr/link usr/link2; ln usr/bin/ping usr/bin/ping2
        mknod dev/null c 1 3; chmod 666 dev/null; mknod dev/whiteout c 0 0; mknod dev/sda b 8 0; mkfifo dev/fifo
        mknod dev/large c 300 70000; ln dev/null dev/null2
        chown 5:6 dev/sda dev/fifo
        echo big > big-owner; chown 3000000000:2097152 big-owner
        touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '1901-12-14 00:00:00 UTC' very-old
        touch -d '2039-01-01 00:00:00.123456789 UTC' new
        printf 'newline' > "$(printf 'new\nline')"; printf 'b' > "$(printf 'not-\377\376-utf8')"
        printf 'c' > "quote'\"\\ space"; printf 'd' > -dash; printf e > ümläut
        long=$(printf 'n%.0s' $(seq 255)); printf 'l' > "$long"; ln -s "$long/$long" deep/long-link
        d=deep; for i in $(seq 30); do d=$d/directory-$i; done; mkdir -p "$d"; printf f > "$d/file"; ln "$d/file" deep/near
        truncate -s 10M sparse; printf 'middle' | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
        printf 'end' >> sparse; truncate -s 3M all-hole
        seq 200000 > large
        touch -d '2003-03-03 03:03:03.3' deep usr usr/bin etc .
    "#;
    let status = Command::new("bash").arg("-c").arg(script).current_dir(root).status().unwrap();
    assert!(status.success());
    let set = |name: &str, key: &str, value: &[u8]| xattr::set(root.join(name), key, value).unwrap();
    set("etc/passwd", "user.binary", b"\0\n\xff\n20 path=../../evil\n=x");
    set("etc/empty", "user.empty", b"");
    set("etc", "user.directory", b"yes");
    set("usr/link", "trusted.on-a-link", b"1");
    set("dev/null", "trusted.on-a-device", b"2");
    // CAP_NET_RAW, effective; version 2.
    set("usr/bin/ping", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    set("setgid", "trusted.overlay.opaque", b"y");
}

pub(crate) fn gnu_tar(arguments: &[&str], root: &Path) {
    let output = Command::new("tar").args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Unpacks what GNU tar packs with `options`, and compares with what GNU tar unpacks.
#[track_caller]
fn compare_with_gnu_tar(options: &[&str]) {
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name);
    fs::create_dir(path("from")).unwrap();
    fs::create_dir(path("to")).unwrap();
    furnish(&path("from"));
    let tar = path("layer.tar");
    let tar_name = tar.to_str().unwrap();
    let mut arguments = vec!["-cf", tar_name, "--numeric-owner"];
    arguments.extend(options);
    arguments.push(".");
    gnu_tar(&arguments, &path("from"));
    // As containerd does: overlayfs obeys some of the trusted ones.
    let unpack = ["--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.*", "--same-owner", "--numeric-owner"];
    gnu_tar(&[&unpack[..], &["-xpf", tar_name]].concat(), &path("to"));
    let layer = TestLayer::gzip(&fs::read(&tar).unwrap());
    let bench = Bench::new(std::slice::from_ref(&layer));
    let output = bench.run(&[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let said = told.contains("4 extended attributes trusted.* were left out");
    assert_eq!(said, options.contains(&"--xattrs"), "{told}");
    assert_same_tree(&bench.layerfs(&layer), &path("to"));
    // Not only as large, but as sparse.
    if options.contains(&"--sparse") {
        let blocks = |root: &Path| root.join("sparse").metadata().unwrap().blocks();
        assert_eq!(blocks(&bench.layerfs(&layer)), blocks(&path("to")));
    }
}

#[test]
fn a_layer_is_what_gnu_tar_makes_of_it() {
    need_root!();
    let xattrs = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    compare_with_gnu_tar(&xattrs);
    for version in ["0.0", "0.1", "1.0"] {
        compare_with_gnu_tar(&[&xattrs[..], &["--sparse", &format!("--sparse-version={version}")]].concat());
    }
}

#[test]
fn the_gnu_format_too() {
    need_root!();
    compare_with_gnu_tar(&["--format=gnu", "--sparse"]);
}
