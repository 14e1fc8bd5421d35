machine.wait_for_unit("k3s.service")
machine.wait_for_open_port(5000)
machine.succeed("cvmfs-snapshotter health")

with subtest("k3s took over the snapshotter"):
    rendered = machine.succeed("cat /var/lib/rancher/k3s/agent/etc/containerd/config.toml")
    assert "cvmfs-snapshotter" in rendered, rendered

with subtest("a pod starts without a layer being downloaded"):
    machine.wait_until_succeeds("k3s kubectl get serviceaccount default", timeout=300)
    machine.succeed("k3s kubectl apply -f /etc/testbed/pod.yaml")
    machine.wait_until_succeeds("k3s kubectl wait --for=condition=Ready --timeout=5s pod/app", timeout=300)
    assert downloaded_layers(machine) == set()

with subtest("it sees the image as it is meant"):
    assert_app_is_right(machine, "k3s kubectl exec app --")

with subtest("it outlives a restart of the snapshotter"):
    machine.succeed("systemctl restart cvmfs-snapshotter.service")
    shown = machine.succeed("k3s kubectl exec app -- cat /app/message")
    assert shown == "from the repository\n", shown
