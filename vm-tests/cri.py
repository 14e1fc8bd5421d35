wait_until_ready(machine)
machine.wait_until_succeeds("crictl info", timeout=60)

with subtest("an image is pulled without any of its layers"):
    machine.succeed(f"crictl pull {APP}")
    assert downloaded_layers(machine) == set()

with subtest("a pod runs it"):
    pod = machine.succeed("crictl runp /etc/testbed/pod.json").strip()
    container = machine.succeed(
        f"crictl create {pod} /etc/testbed/container.json /etc/testbed/pod.json"
    ).strip()
    machine.succeed(f"crictl start {container}")
    assert_app_is_right(machine, f"crictl exec --sync {container}")
    # The pause image too.
    assert downloaded_layers(machine) == set()

with subtest("the snapshots are ours"):
    machine.succeed("test -n \"$(ctr --namespace k8s.io snapshots --snapshotter cvmfs-snapshotter list | tail -n +2)\"")
    machine.succeed("test -z \"$(ctr --namespace k8s.io snapshots --snapshotter overlayfs list | tail -n +2)\"")

with subtest("kubelet is told where the images are"):
    shown = json.loads(machine.succeed("crictl imagefsinfo"))
    paths = json.dumps(shown)
    assert ROOT in paths, paths

with subtest("the pod goes on while both daemons restart"):
    machine.succeed("systemctl restart cvmfs-snapshotter.service containerd.service")
    machine.wait_until_succeeds("crictl info", timeout=60)
    shown = machine.succeed(f"crictl exec --sync {container} cat /app/message")
    assert "from the repository" in shown, shown

with subtest("pod and image can be removed"):
    machine.succeed(f"crictl rmp --force {pod}", f"crictl rmi {APP}")
