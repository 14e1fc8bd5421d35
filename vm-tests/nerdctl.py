wait_until_ready(machine)

with subtest("an image is pulled without any of its layers"):
    machine.succeed(f"{NERDCTL} pull {APP}")
    assert downloaded_layers(machine) == set()

with subtest("its layers take no space here"):
    size = machine.succeed(f"{NERDCTL} images --format '{{{{.Size}}}}'").strip()
    assert size.replace(" ", "") in ("0B", "0.0B"), size

with subtest("a container sees the image as it is meant"):
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    owned = machine.succeed(f"{RUN} --rm {APP} stat -c %a:%u:%g /app/owned").strip()
    assert owned == "600:1000:1000", owned

with subtest("users of the image are known by name"):
    shown = machine.succeed(f"{RUN} --rm --user app {APP} cat /app/owned")
    assert shown == "mine\n", shown

with subtest("a container can write, and another one does not see it"):
    machine.succeed(f"{RUN} --rm {APP} sh -c 'echo x > /app/message; rm /etc/passwd; rm -r /data; mkdir /data'")
    assert_app_is_right(machine, f"{RUN} --rm {APP}")

with subtest("the daemon mounts nothing"):
    machine.fail("grep containerd-cvmfs-grpc /proc/self/mountinfo")

with subtest("an image that is removed can be pulled again"):
    machine.succeed(f"{NERDCTL} rmi --force {APP}")
    machine.succeed(f"{NERDCTL} pull {APP}")
    assert_app_is_right(machine, f"{RUN} --rm {APP}")
    assert downloaded_layers(machine) == set()
