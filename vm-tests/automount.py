REPOSITORY = "/cvmfs/test.cern.ch"
UNIT = "cvmfs-test.cern.ch"

wait_until_ready(machine)

with subtest("the module made an automount that never ends"):
    machine.require_unit_state(f"{UNIT}.automount")
    idle = machine.succeed(f"systemctl show --property TimeoutIdleUSec --value {UNIT}.automount").strip()
    assert idle == "infinity", idle

with subtest("the idle snapshotter does not keep the repository busy"):
    # Its first look may have mounted it.
    machine.execute(f"umount {REPOSITORY}")
    machine.wait_until_succeeds(f"systemctl show --property ActiveState --value {UNIT}.mount | grep -x inactive", timeout=30)
    machine.require_unit_state(f"{UNIT}.automount")

with subtest("the first pull mounts it"):
    machine.succeed(f"{NERDCTL} pull {APP}")
    machine.require_unit_state(f"{UNIT}.mount")
    assert downloaded_layers(machine) == set()
    assert_app_is_right(machine, f"{RUN} --rm {APP}")

with subtest("containers that do not run as root can use it"):
    shown = machine.succeed(f"{RUN} --rm --user app {APP} cat /app/owned")
    assert shown == "mine\n", shown

with subtest("so does the first container after it was unmounted"):
    machine.succeed(f"umount {REPOSITORY}")
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    machine.require_unit_state(f"{UNIT}.mount")

with subtest("a restart of the snapshotter leaves the mount alone"):
    device = machine.succeed(f"stat -c %d {REPOSITORY}")
    machine.succeed("systemctl restart cvmfs-snapshotter.service")
    machine.require_unit_state(f"{UNIT}.mount")
    assert machine.succeed(f"stat -c %d {REPOSITORY}") == device
