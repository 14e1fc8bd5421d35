//! The library's unit tests in a sandbox like those in which packages are built: an ordinary user without a home, no
//! network, no extended attributes, no bits that set ids. Nix's sandbox is the strictest of these, and its package runs
//! these tests; here they run under the same rules without Nix.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Debian's user `nobody`; on others nobody as well.
const NOBODY: u32 = 65534;

#[test]
fn unit_tests_pass_in_the_sandbox_of_a_package_build() {
    let sandbox = tempfile::tempdir().unwrap();
    let place = sandbox.path();
    fs::set_permissions(place, Permissions::from_mode(0o755)).unwrap();
    // Not where they were built: an ordinary user may have no way to there.
    fs::copy(unit_tests(), place.join("unit-tests")).unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for read in ["Cargo.toml", "src", "tests/data"] {
        copy(&project.join(read), &place.join(read));
    }
    let temporary = place.join("tmp");
    fs::create_dir(&temporary).unwrap();
    fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).unwrap();

    let place = place.to_owned();
    // A filter and namespaces are a thread's, and those of the processes that it starts.
    let Output { status, stdout, stderr } = thread::spawn(move || run_confined(&place, &temporary)).join().unwrap();
    // Not printed as it is: `make test` counts these tests already.
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}\n| {}", said.replace('\n', "\n| "));
    assert!(said.contains("test result: ok."), "{said}");
}

/// Builds the program with the library's unit tests, unless that was done before.
fn unit_tests() -> PathBuf {
    let arguments = ["test", "--locked", "--offline", "--package", env!("CARGO_PKG_NAME"), "--lib", "--no-run"];
    let built = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--message-format=json")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).unwrap();
    let artifacts = messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let program = artifacts.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from)).next_back();
    program.expect("the program with the unit tests")
}

/// Copies a file or a tree, readable for everybody.
fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        // Without a slash at its end, where it is a file.
        let target: PathBuf = target.components().collect();
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if entry.file_type().is_dir() {
            fs::create_dir(&target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
        } else {
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        }
    }
}

fn run_confined(place: &Path, temporary: &Path) -> Output {
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }
    confine();
    prove_confinement(temporary);
    let mut command = Command::new(place.join("unit-tests"));
    command.current_dir(place).env_clear();
    command.env("TMPDIR", temporary).env("HOME", "/homeless-shelter").env("PATH", std::env::var_os("PATH").unwrap());
    // Where insta looks for what is expected, without asking Cargo.
    command.env("INSTA_WORKSPACE_ROOT", place).env("INSTA_UPDATE", "no");
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

/// Lets this thread make no system call that Nix forbids its builds, with the same answers.
fn confine() {
    let sets_ids = |argument| {
        [libc::S_ISUID, libc::S_ISGID].map(|bit| {
            let bit = u64::from(bit);
            let has = SeccompCmpOp::MaskedEq(bit);
            SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, has, bit).unwrap()]).unwrap()
        })
    };
    let modes = [
        // Other architectures have fchmodat alone.
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, 1),
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_fchmodat2, 2),
    ];
    forbid(modes.map(|(call, argument)| (call, sets_ids(argument).to_vec())).into(), libc::EPERM);

    let attributes = [
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_flistxattr,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_fgetxattr,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
    ];
    // No rule: whatever the arguments are.
    forbid(attributes.map(|call| (call, Vec::new())).into(), libc::ENOTSUP);
}

fn forbid(calls: BTreeMap<libc::c_long, Vec<SeccompRule>>, errno: libc::c_int) {
    let refuse = SeccompAction::Errno(u32::try_from(errno).unwrap());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refuse, architecture).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

/// Without it a filter that lets everything through would not be noticed.
fn prove_confinement(temporary: &Path) {
    let file = temporary.join("proof");
    fs::write(&file, "").unwrap();
    let refused = fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    fs::set_permissions(&file, Permissions::from_mode(0o1755)).unwrap();
    assert_eq!(xattr::set(&file, "user.x", b"x").unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(xattr::get(&file, "user.x").unwrap_err().kind(), ErrorKind::Unsupported);
    fs::remove_file(&file).unwrap();
}
