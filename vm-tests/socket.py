wait_until_ready(machine)

with subtest("socket and directory are root's alone"):
    shown = machine.succeed(f"stat -c %a:%U {SOCKET} $(dirname {SOCKET})").split()
    assert shown == ["600:root", "700:root"], shown
    machine.fail("runuser -u nobody -- cvmfs-snapshotter health")

with subtest("the first request starts the service"):
    # containerd would connect again by itself.
    machine.succeed("systemctl stop containerd.service cvmfs-snapshotter.service")
    machine.require_unit_state("cvmfs-snapshotter.socket")
    machine.require_unit_state("cvmfs-snapshotter.service", "inactive")
    machine.succeed("cvmfs-snapshotter health --timeout 1m")
    machine.wait_for_unit("cvmfs-snapshotter.service")

with subtest("so does the first use by containerd"):
    machine.succeed("systemctl stop cvmfs-snapshotter.service")
    machine.succeed("systemctl start containerd.service")
    machine.wait_for_unit("containerd.service")
    # containerd waits a second or so for an answer, then the call fails; on a slow machine the start takes longer.
    machine.wait_until_succeeds(f"{NERDCTL} pull {APP}", timeout=60)
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    assert downloaded_layers(machine) == set()

with subtest("a stop leaves the socket where it was"):
    inode = machine.succeed(f"stat -c %i {SOCKET}")
    machine.succeed("systemctl restart cvmfs-snapshotter.service")
    assert machine.succeed(f"stat -c %i {SOCKET}") == inode
    machine.succeed("cvmfs-snapshotter health")

with subtest("nobody is refused while the service restarts"):
    machine.succeed("systemctl kill --signal=KILL cvmfs-snapshotter.service", "cvmfs-snapshotter health --timeout 1m")

with subtest("containerd stops before the snapshotter, and the snapshotter before its socket"):
    for earlier, later in [
        ("containerd.service", "cvmfs-snapshotter.service"),
        ("containerd.service", "cvmfs-snapshotter.socket"),
        ("cvmfs-snapshotter.service", "cvmfs-snapshotter.socket"),
    ]:
        after = machine.succeed(f"systemctl show --property After --value {earlier}").split()
        assert later in after, (earlier, after)
