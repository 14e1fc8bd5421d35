wait_until_ready(machine)

with subtest("only the layer that is missing is downloaded"):
    machine.succeed(f"{NERDCTL} pull {PARTLY}")
    assert downloaded_layers(machine) == {digests(machine, PARTLY)[-1]}
    shown = machine.succeed(f"{RUN} --rm {PARTLY} cat /app/message /app/version")
    assert shown == "from the repository\n2\n", shown
    machine.fail(f"{RUN} --rm {PARTLY} cat /etc/secret")

with subtest("the log says which layer was downloaded, and why"):
    missing = digests(machine, PARTLY)[-1].removeprefix("sha256:")
    machine.succeed(f"journalctl --unit cvmfs-snapshotter.service --output json | grep {missing}")

with subtest("an image of which nothing is there is downloaded"):
    machine.succeed(f"{NERDCTL} pull {OTHER}")
    assert set(digests(machine, OTHER)) <= downloaded_layers(machine)
    shown = machine.succeed(f"{RUN} --rm {OTHER} cat /app/message")
    assert shown == "downloaded\n", shown

with subtest("containerd's own snapshotter works beside ours"):
    overlayfs = NERDCTL.replace("cvmfs-snapshotter", "overlayfs")
    machine.succeed(f"{overlayfs} pull {OTHER}")
    machine.succeed(f"{overlayfs} run --rm --net none {OTHER} cat /app/message")

with subtest("a layer that appears later is used"):
    machine.succeed(f"{NERDCTL} rmi --force {PARTLY}")
    machine.succeed("cvmfs-snapshotter unpack --ref app:2 /etc/testbed/oci /srv/layers")
    machine.succeed(": > /var/log/nginx/registry.log")
    # Until containerd has collected the old snapshots, there is nothing to ask for.
    machine.wait_until_succeeds(f"test -z \"$({NERDCTL} images --quiet {PARTLY})\"")
    machine.succeed(f"{NERDCTL} pull {PARTLY}")
    assert downloaded_layers(machine) == set()
