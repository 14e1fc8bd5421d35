"""A machine that is a container of systemd-nspawn: it boots in seconds, but shares the kernel."""

import os
import pathlib
import subprocess

from machine import Machine, retry

CGROUPS = pathlib.Path("/sys/fs/cgroup")


class Container(Machine):
    def __init__(self, name, folder, log, root, console):
        super().__init__(name, folder, log)
        self.root, self.console = root, console
        # One in each hierarchy, so that what is left in them can be found.
        hierarchies = [path for path in [CGROUPS, *CGROUPS.iterdir()] if (path / "cgroup.procs").exists() and path.is_mount()]
        self.cgroups = [path / f"vm-test-{os.getpid()}-{name}" for path in hierarchies]

    def command(self, shell):
        # Alone, systemd-nspawn would leave its container behind when it is killed.
        return [
            *["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
            *["systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no"],
            *[f"--directory={self.root}", f"--machine={self.name}", "--private-network"],
            *["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"],
            *["--capability=all", "--bind=/dev/autofs", "--bind=/dev/fuse", f"--bind={self.folder}:/run/driver"],
            *["--system-call-filter=@keyring", "--system-call-filter=bpf"],
        ]

    def prepare_process(self):
        super().prepare_process()
        for cgroup in self.cgroups:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        console = os.open(self.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(console, 1)
        os.dup2(console, 2)

    def start(self, allow_reboot=False):
        for cgroup in self.cgroups:
            cgroup.mkdir(exist_ok=True)
            for name in ["cpuset.cpus", "cpuset.mems"]:
                # Of version 1, where a new one has none.
                if (cgroup.parent / name).exists():
                    (cgroup / name).write_text((cgroup.parent / name).read_text())
        super().start(allow_reboot)

    def release(self):
        super().release()
        for cgroup in self.cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                # Its processes may still be ending.
                retry(lambda: not (pathlib.Path(folder) / "cgroup.procs").read_text(), 30, f"{folder} is empty")
                os.rmdir(folder)
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
