"""A virtual machine under QEMU, without KVM."""

import socket

from machine import Machine

BOOTED = "booted"


class Qemu(Machine):
    def __init__(self, name, folder, log, boot, disk, memory, console, network=None, resume=False):
        """`boot` is the folder of the kernel; `disk` is an image, which the machine changes. With `resume` it has the
        state of a booted machine, which the first start takes up."""
        super().__init__(name, folder, log)
        self.boot, self.disk, self.memory, self.console = boot, disk, memory, console
        self.network, self.resume = network, resume

    def command(self, shell):
        command = [*options(self.memory), "-name", self.name]
        command += ["-kernel", self.boot / "vmlinuz", "-initrd", self.boot / "initrd.img"]
        command += ["-drive", f"file={self.disk},format=qcow2,if=virtio"]
        command += ["-chardev", f"socket,id=shell,path={shell}", "-device", "virtconsole,chardev=shell"]
        command += ["-chardev", f"file,id=serial,path={self.console},append=on", "-serial", "chardev:serial"]
        command += ["-monitor", f"unix:{self.folder / 'monitor'},server=on,wait=off"]
        command += self.network.options(self.name) if self.network else ["-nic", "none"]
        if self.resume:
            command += ["-loadvm", BOOTED]
        return command

    def start(self, allow_reboot=False):
        super().start(allow_reboot)
        if self.resume:
            # Its shell was ready when it was saved.
            self.connected, self.resume = True, False

    def save(self):
        """Keeps the state of the running machine in its disk, and ends it."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(300)
            monitor.connect(str(self.folder / "monitor"))
            stream = monitor.makefile("rw")
            stream.write(f"savevm {BOOTED}\nquit\n")
            stream.flush()
            shown = stream.read()
        if "Error" in shown:
            raise RuntimeError(f"the state of {self.name} was not saved: {shown}")
        self.wait_for_shutdown()


def options(memory):
    """What a machine must have in common with the one whose state it takes up."""
    return [
        *["qemu-system-x86_64", "-display", "none", "-no-reboot"],
        *["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory)],
        *["-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet panic=1"],
        *["-device", "virtio-rng-pci", "-device", "virtio-serial"],
    ]
