wait_until_ready(machine)

with subtest("a container writes"):
    machine.succeed(f"{NERDCTL} pull {APP}")
    machine.succeed(f"{RUN} --detach --name keeper {APP}")
    # What clients keep about a container is not synced by themselves.
    machine.succeed("sync")
    machine.succeed(f"{NERDCTL} exec keeper sh -c 'echo precious > /data/kept; sync'")

with subtest("the power is cut straight after a pull"):
    machine.succeed(f"{NERDCTL} pull {OTHER}")
    machine.crash()
    machine.start()
    wait_until_ready(machine)

with subtest("the container starts with its data"):
    machine.succeed(f"{NERDCTL} start keeper")
    kept = machine.succeed(f"{NERDCTL} exec keeper cat /data/kept /app/message")
    assert kept == "precious\nfrom the repository\n", kept

with subtest("the images are there"):
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    machine.succeed(f"{NERDCTL} pull {OTHER}")
    shown = machine.succeed(f"{RUN} --rm {OTHER} cat /app/message")
    assert shown == "downloaded\n", shown

with subtest("an orderly reboot"):
    machine.shutdown()
    machine.start()
    wait_until_ready(machine)
    machine.succeed(f"{NERDCTL} start keeper")
    kept = machine.succeed(f"{NERDCTL} exec keeper cat /data/kept")
    assert kept == "precious\n", kept
    assert not downloaded_layers(machine) & set(digests(machine, APP))
