# Put before every test body. The bodies name no path of the Nix store, so that another driver with the same interface
# can run them on another system.
import json

REGISTRY = "127.0.0.1:5000"
APP = f"{REGISTRY}/app:1"
PARTLY = f"{REGISTRY}/app:2"
OTHER = f"{REGISTRY}/other:1"
EXTRA = f"{REGISTRY}/extra:1"
ROOT = "/var/lib/containerd-cvmfs-grpc"
SOCKET = "/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock"
NERDCTL = "nerdctl --snapshotter cvmfs-snapshotter"
RUN = f"{NERDCTL} run --net none"


def wait_until_ready(machine):
    """The machine has booted, and everything that a pull needs answers."""
    machine.wait_for_unit("multi-user.target")
    machine.wait_for_unit("containerd.service")
    machine.wait_for_open_port(5000)
    machine.wait_until_succeeds("cvmfs-snapshotter health", timeout=60)


def digests(machine, image):
    """The digests of an image's layers, lowest first."""
    return json.loads(machine.succeed("cat /etc/testbed/digests.json"))[image.removeprefix(f"{REGISTRY}/")]


def downloaded_layers(machine):
    """The digests of the layers that the registry was asked for."""
    every = json.loads(machine.succeed("cat /etc/testbed/digests.json"))
    log = machine.succeed("cat /var/log/nginx/registry.log")
    return {digest for layers in every.values() for digest in layers if f"/blobs/{digest}" in log}


def main_pid(machine):
    return machine.succeed("systemctl show --property MainPID --value cvmfs-snapshotter.service").strip()


def assert_app_is_right(machine, command):
    """`command SHELL-COMMAND` runs in a container of APP: what its layers delete is gone, and nothing else."""
    # In one container: starting one takes a slow machine long.
    shown = machine.succeed(
        f"{command} sh -c 'cat /app/message /app/version; ls -a /data/old; stat -c %a:%u:%g /srv/shared; echo; ls -a / /etc /app'"
    )
    shown, _, names = shown.partition("\n\n")
    assert shown.split() == ["from", "the", "repository", "1", ".", "..", "new", "2775:0:8"], shown
    names = names.split()
    assert "passwd" in names and "secret" not in names, names
    assert not [name for name in names if name.startswith((".wh.", ".cvmfs"))], names


