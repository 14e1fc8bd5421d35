wait_until_ready(machine)

with subtest("the options are in effect"):
    dump = machine.succeed("cvmfs-snapshotter config dump")
    for text in ["/run/other/snapshotter.sock", "/data/snapshots", "/srv/more", "required", "debug", "3s"]:
        assert text in dump, (text, dump)
    modes = machine.succeed("stat -c %a:%U /run/other/snapshotter.sock /run/other /data/snapshots").split()
    assert modes == ["600:root", "700:root", "700:root"], modes
    machine.fail(f"test -e {SOCKET} || test -e {ROOT}")

with subtest("both repositories are used"):
    machine.succeed(f"{NERDCTL} pull {APP}", f"{NERDCTL} pull {EXTRA}")
    assert downloaded_layers(machine) == set()
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    shown = machine.succeed(f"{RUN} --rm {EXTRA} cat /app/message")
    assert shown == "from another repository\n", shown

with subtest("the state lies where it should"):
    machine.succeed("test -n \"$(ls -A /data/snapshots/snapshots)\"")
