REPOSITORY = "/cvmfs/test.cern.ch"


def command_to_client(command):
    return f"echo '{{\"cmd\":\"{command}\"}}' | socat -t 20 - UNIX:/run/mock-cvmfs/test.cern.ch/control"


def assert_error_is_clear():
    status, output = machine.execute(f"timeout 120 {RUN} --rm {APP} true 2>&1")
    assert status not in (0, 124), (status, output)
    assert "test.cern.ch" in output, output


def assert_others_are_served():
    # Nothing of it is in the repository.
    machine.succeed("timeout 10 cvmfs-snapshotter health")
    machine.succeed(f"timeout 60 {RUN} --rm {OTHER} true")


wait_until_ready(machine)
machine.succeed(f"{NERDCTL} pull {APP}", f"{NERDCTL} pull {OTHER}")
machine.succeed(f"{RUN} --detach --name victim {APP}")
pid = main_pid(machine)

with subtest("dead: the error says what is wrong, other images go on"):
    machine.succeed("pkill --signal KILL --exact mock-cvmfs")
    machine.wait_until_fails(f"stat --file-system {REPOSITORY}", timeout=30)
    assert_error_is_clear()
    assert_others_are_served()

with subtest("the idle snapshotter does not keep the dead repository busy, the victim can be removed"):
    machine.succeed(f"timeout 60 {NERDCTL} rm --force victim")
    # Without --lazy, which says nothing about that.
    machine.wait_until_succeeds(f"umount {REPOSITORY}", timeout=30)

with subtest("back: new containers work without a restart of anything"):
    machine.wait_until_succeeds(f"{RUN} --rm {APP} true", timeout=60)
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    assert main_pid(machine) == pid

with subtest("hung: the error comes within the time limit, other images go on"):
    machine.succeed(command_to_client("hang"))
    assert_error_is_clear()
    assert_others_are_served()

with subtest("it answers again"):
    machine.succeed(command_to_client("unhang"))
    machine.wait_until_succeeds(f"{RUN} --rm {APP} true", timeout=60)
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    assert main_pid(machine) == pid

with subtest("the idle snapshotter lets the host unmount it"):
    machine.succeed(f"umount {REPOSITORY}")
    assert downloaded_layers(machine) == set(digests(machine, OTHER))
