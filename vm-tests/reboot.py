def pull_and_cut_the_power(image):
    """Nothing is written back to the disk but what somebody asks for, as the last file shows."""
    machine.succeed(f"rm -f /var/lib/not-synced; {NERDCTL} pull {image}; echo written > /var/lib/not-synced")
    machine.crash()
    machine.start()
    wait_until_ready(machine)
    machine.fail("test -s /var/lib/not-synced")
    machine.succeed(": > /var/log/nginx/registry.log")


wait_until_ready(machine)

with subtest("the power is cut straight after a pull of layers in place"):
    pull_and_cut_the_power(APP)
    assert_app_is_right(machine, f"{RUN} --pull never --rm {APP}")

with subtest("the power is cut straight after a pull of both kinds of layers, beside a container that has written"):
    machine.succeed(f"{RUN} --pull never --detach --name keeper {APP}")
    # What clients keep about a container is not synced by themselves.
    machine.succeed("sync")
    machine.succeed(f"{NERDCTL} exec keeper sh -c 'echo precious > /data/kept; sync'")
    pull_and_cut_the_power(PARTLY)
    shown = machine.succeed(f"{RUN} --pull never --rm {PARTLY} cat /app/message /app/version")
    assert shown == "from the repository\n2\n", shown

with subtest("the container starts with its data"):
    machine.succeed(f"{NERDCTL} start keeper")
    kept = machine.succeed(f"{NERDCTL} exec keeper cat /data/kept /app/message")
    assert kept == "precious\nfrom the repository\n", kept
    assert downloaded_layers(machine) == set()

with subtest("an orderly reboot"):
    # systemd would wait 90 seconds for it.
    machine.succeed(f"{NERDCTL} stop --time 0 keeper")
    machine.shutdown()
    machine.start()
    wait_until_ready(machine)
    machine.succeed(f"{NERDCTL} start keeper")
    kept = machine.succeed(f"{NERDCTL} exec keeper cat /data/kept")
    assert kept == "precious\n", kept
    assert downloaded_layers(machine) == set()
