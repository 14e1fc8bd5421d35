def container_pid():
    return machine.succeed(f"{NERDCTL} inspect --format '{{{{.State.Pid}}}}' keeper").strip()


wait_until_ready(machine)
machine.succeed(f"{NERDCTL} pull {APP}")
machine.succeed(f"{RUN} --detach --name keeper {APP}")
machine.succeed(f"{NERDCTL} exec keeper sh -c 'echo precious > /data/kept'")
pid = container_pid()

for action in [
    "systemctl restart cvmfs-snapshotter.service",
    "systemctl kill --signal=KILL cvmfs-snapshotter.service",
    "systemctl restart cvmfs-snapshotter.socket cvmfs-snapshotter.service",
    "systemctl restart containerd.service",
    "systemctl restart cvmfs-snapshotter.service containerd.service",
    "systemctl kill --signal=KILL cvmfs-snapshotter.service; systemctl restart containerd.service",
]:
    with subtest(action):
        before = main_pid(machine)
        machine.succeed(action)
        if "cvmfs-snapshotter" in action:
            machine.wait_until_succeeds(
                f"test $(systemctl show --property MainPID --value cvmfs-snapshotter.service) != {before}", timeout=60
            )
        machine.wait_for_unit("cvmfs-snapshotter.service")
        machine.wait_for_unit("containerd.service")
        machine.wait_until_succeeds("cvmfs-snapshotter health", timeout=60)
        assert container_pid() == pid
        kept = machine.succeed(f"{NERDCTL} exec keeper cat /data/kept /app/message")
        assert kept == "precious\nfrom the repository\n", kept
        # containerd connects again within seconds.
        machine.wait_until_succeeds(f"{RUN} --rm {APP} true", timeout=30)
        assert_app_is_right(machine, f"{RUN} --rm {APP}")

with subtest("a reload keeps the process"):
    before = main_pid(machine)
    machine.succeed("systemctl reload cvmfs-snapshotter.service")
    machine.succeed("cvmfs-snapshotter health")
    assert main_pid(machine) == before

with subtest("nothing was downloaded, and everything can be removed"):
    assert downloaded_layers(machine) == set()
    machine.succeed(f"{NERDCTL} rm --force keeper")
    machine.succeed(f"{NERDCTL} rmi --force {APP}")
    machine.wait_until_succeeds(f"test -z \"$(ls -A {ROOT}/snapshots)\"", timeout=60)
