"""Makes what the machines of the tests are started from."""

import contextlib
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


@contextlib.contextmanager
def locked(path, kind=fcntl.LOCK_EX):
    """Waits until nobody else has the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, kind)
        yield


@contextlib.contextmanager
def booted(base, tree, memory, names, log, disk=None):
    """Makes a disk with the state of a machine that has booted for the first time; a copy of that of an earlier run, if
    nothing has changed since. `names` are those of all machines of its test. Without a disk it is done ahead.

    What the disk stands on stays as it is until the context ends."""
    tree = tree.resolve()
    cache = WORK / "machines" / "-".join(tree.parts[-2:])
    lock = cache.with_suffix(".lock")
    stamp = key(base, tree, memory, names)

    def is_current():
        return (cache / "stamp").exists() and (cache / "stamp").read_text() == stamp

    while True:
        with locked(lock, fcntl.LOCK_SH):
            if is_current():
                if disk:
                    shutil.copyfile(cache / "booted", disk)
                yield
                return
        with locked(lock):
            # Somebody else may have been at it.
            if not is_current():
                shutil.rmtree(cache, ignore_errors=True)
                cache.mkdir()
                boot(base, tree, memory, names, cache, log, nice=1 if disk else 19)
                (cache / "stamp").write_text(stamp)


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
    inputs += [TARGET / "debug/cvmfs-snapshotter", TARGET / "debug/mock-cvmfs"]
    inputs += sorted((PROJECT / "build/tools").glob("*/stamp"))
    inputs += [path for folder in (PROJECT / "vm-tests/lib", tree) for path in sorted(folder.rglob("*"))]
    version = subprocess.check_output(["qemu-system-x86_64", "--version"], text=True)
    digest = hashlib.sha256(f"{version} {inspect.getsource(qemu)} {memory} {len(names) > 1}".encode())
    for path in inputs:
        digest.update(f"\0{path}\0".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
