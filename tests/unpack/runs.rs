//! Runs that repeat each other, meet each other, or do not end well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::bench::{Bench, TestLayer, list, simple};
use crate::entries::{archive, file};
use testkit::skip;

#[test]
fn good_layers_stay_when_another_fails() {
    need_root!();
    let good = simple();
    let bad = TestLayer::gzip(&archive(&[file("../x", "x")]));
    let bench = Bench::new(&[good.clone(), bad]);
    assert!(!bench.run(&["--jobs", "1"]).status.success());
    assert!(bench.layerfs(&good).join("etc/motd").exists());
    assert_eq!(bench.staging(), [""; 0]);
}

#[test]
fn repeated_layers_and_repeated_runs_do_nothing_twice() {
    need_root!();
    let empty = TestLayer::gzip(&archive(&[]));
    let layer = simple();
    let bench = Bench::new(&[empty.clone(), layer.clone(), empty.clone()]);
    let summary = bench.unpack();
    assert!(summary.contains("3 layers: 2 new") && summary.contains("1 repeated"), "{summary}");
    let inode = bench.layerfs(&layer).metadata().unwrap().ino();
    assert_eq!(bench.unpack(), "3 layers: 0 new, 2 there already, 1 repeated\n");
    assert_eq!(bench.layerfs(&layer).metadata().unwrap().ino(), inode);
    assert_eq!(list(&bench.layerfs(&empty)), [""; 0]);
}

/// So many small files that unpacking takes a while.
fn slow_layer(n: usize) -> TestLayer {
    let content = "content".repeat(100);
    let entries: Vec<Vec<u8>> = (0..n).map(|i| file(&format!("d{}/f{i}", i % 100), &content)).collect();
    TestLayer::plain(&archive(&entries))
}

#[test]
fn two_runs_at_once_share_the_work_safely() {
    need_root!();
    let layers: Vec<TestLayer> = (0..6).map(|i| slow_layer(500 + i)).collect();
    let bench = Bench::new(&layers);
    let start = || bench.command(&bench.image()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let runs = [start(), start(), start()];
    let mut new = 0;
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = String::from_utf8(output.stdout).unwrap();
        new += summary["6 layers: ".len()..].split(' ').next().unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(new, 6, "each layer is published once");
    assert_eq!(bench.staging(), [""; 0]);
    for (i, layer) in layers.iter().enumerate() {
        let files = walkdir::WalkDir::new(bench.layerfs(layer))
            .into_iter()
            .filter(|e| e.as_ref().unwrap().file_type().is_file());
        assert_eq!(files.count(), 500 + i);
    }
}

#[test]
fn a_killed_run_leaves_nothing_visible_and_the_next_cleans_up() {
    need_root!();
    let layer = slow_layer(60_000);
    let bench = Bench::new(std::slice::from_ref(&layer));
    let mut run = bench.command(&bench.image()).stderr(Stdio::null()).spawn().unwrap();
    let staging = bench.path("repository/.layers/.tmp");
    let begun = || {
        let entries = fs::read_dir(&staging).into_iter().flatten().flatten();
        entries.map(|e| e.path().join("layerfs/d7")).any(|path| path.exists())
    };
    testkit::eventually("it is at work", || {
        assert!(run.try_wait().unwrap().is_none(), "it was never seen at work");
        begun()
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(bench.staging().len(), 2, "a directory and its lock");
    assert!(!bench.layer_directory(&layer.digest).exists());
    bench.unpack();
    assert_eq!(bench.staging(), [""; 0]);
    assert!(bench.layerfs(&layer).join("d99/f59999").exists());
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    need_root!();
    let layer = slow_layer(3000);
    let bench = Bench::new(std::slice::from_ref(&layer));
    let repository = bench.path("repository");
    fs::create_dir(&repository).unwrap();
    // In a mount namespace of its own, which takes the file system with it.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$2\" || exit 99; \"$0\" unpack \"$1\" \"$2\"; code=$?; \
                  ls -A \"$2/.layers\" \"$2/.layers/.tmp\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, env!("CARGO_BIN_EXE_cvmfs-snapshotter")]);
    let output = command.arg(bench.image()).arg(&repository).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(99) || message.starts_with("unshare:") {
        return skip::lacks(&format!("it cannot mount here: {}", message.trim()));
    }
    assert!(!output.status.success());
    assert!(message.contains("No space left on device") && message.contains("entry \"d"), "{message}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
    assert_eq!(lines, [".tmp"]);
}

#[test]
fn without_root_it_says_so() {
    need_root!();
    let bench = Bench::new(&[simple()]);
    // The program itself may lie where that user cannot go: it is handed over as an open file.
    let script = "exec setpriv --reuid 65534 --clear-groups /proc/self/fd/3 unpack \"$1\" \"$2\" 3<\"$0\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_cvmfs-snapshotter")]);
    let output = command.arg(bench.image()).arg(bench.path("repository")).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(127) || output.status.code() == Some(126) {
        return skip::lacks(&format!("it cannot become another user here: {}", message.trim()));
    }
    assert!(message.contains("must run as root"), "{message}");
    assert!(!bench.path("repository").exists());
}
