"""A network of virtual machines: what one sends, all others get."""

import socket
import threading


class Network:
    def __init__(self, folder, names):
        self.folder, self.names = folder, sorted(names)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "network"))
        threading.Thread(target=self.forward, daemon=True).start()

    def path(self, name):
        return self.folder / f"{name}.network"

    def options(self, name):
        """Options of QEMU for the machine's network card."""
        self.path(name).unlink(missing_ok=True)
        ends = f"local.type=unix,local.path={self.path(name)},remote.type=unix,remote.path={self.folder / 'network'}"
        address = f"52:54:00:00:00:{self.names.index(name) + 1:02x}"
        return ["-netdev", f"dgram,id=network,{ends}", "-device", f"virtio-net-pci,netdev=network,mac={address}"]

    def forward(self):
        while True:
            frame, sender = self.socket.recvfrom(1 << 17)
            for name in self.names:
                if str(self.path(name)) != sender:
                    try:
                        self.socket.sendto(frame, str(self.path(name)))
                    except OSError:
                        # It is not running: as with a cable that is not plugged in.
                        pass
