"""Makes what the machines of the tests are started from."""

import fcntl
import hashlib
import inspect
import os
import pathlib
import shutil
import subprocess
import tempfile

import qemu
from machine import die_with_parent
from network import Network

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
WORK = PROJECT / "build" / "vm"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))


def base():
    """The folder of the Debian that all machines have in common."""
    return pathlib.Path(subprocess.check_output([HERE / "base"], text=True).strip())


def root(base, tree, path, log):
    """Makes the root of a machine that has the rendered tree."""
    command = [HERE / "root", base, tree, path]
    subprocess.run(command, check=True, stdout=log.file, stderr=log.file, preexec_fn=die_with_parent)


def booted(base, tree, memory, names, log, disk=None):
    """Makes a disk with the state of a machine that has booted for the first time; a copy of that of an earlier run, if
    nothing has changed since. `names` are those of all machines of its test. Without a disk it is done ahead."""
    tree = tree.resolve()
    cache = WORK / "machines" / "-".join(tree.relative_to(HERE / "rendered").parts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    stamp = key(base, tree, memory, names)
    # Somebody else may be at it.
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "stamp").exists() or (cache / "stamp").read_text() != stamp:
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            boot(base, tree, memory, names, cache, log, nice=1 if disk else 19)
            (cache / "stamp").write_text(stamp)
        if disk:
            shutil.copyfile(cache / "booted", disk)


def boot(base, tree, memory, names, cache, log, nice):
    with tempfile.TemporaryDirectory(prefix="root.", dir=WORK) as scratch:
        path = pathlib.Path(scratch) / "root"
        root(base, tree, path, log)
        with (cache / "disk").open("w") as disk:
            disk.truncate(4 << 30)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", path, cache / "disk"], check=True)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", cache / "disk", cache / "booted"]
    subprocess.run(create, check=True)
    with tempfile.TemporaryDirectory(prefix="vm-") as folder:
        folder = pathlib.Path(folder)
        network = Network(folder, names) if len(names) > 1 else None
        machine = qemu.Qemu(tree.name, folder, log, base, cache / "booted", memory, cache / "console", network)
        machine.nice = nice
        try:
            # Without asking again and again, which slows the boot down.
            machine.execute("systemctl is-system-running --wait")
            machine.wait_for_unit("multi-user.target")
            machine.succeed("sync")
            machine.save()
        finally:
            machine.release()


def key(base, tree, memory, names):
    """Tells apart all machines that could behave differently."""
    inputs = [base / "stamp", HERE / "root", HERE / "backdoor", HERE / "backdoor.service"]
    inputs += [TARGET / "debug/cvmfs-snapshotter", TARGET / "debug/examples/mock-cvmfs"]
    inputs += sorted((PROJECT / "build/tools").glob("*/stamp"))
    inputs += [path for folder in (PROJECT / "vm-tests/lib", tree) for path in sorted(folder.rglob("*"))]
    digest = hashlib.sha256(f"{inspect.getsource(qemu)} {memory} {len(names) > 1}".encode())
    for path in inputs:
        digest.update(f"\0{path}\0".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
