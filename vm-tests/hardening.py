wait_until_ready(machine)
machine.succeed(f"{NERDCTL} pull {APP}")

with subtest("the exposure level"):
    machine.succeed("systemd-analyze security --no-pager --threshold=15 cvmfs-snapshotter.service")

with subtest("the running process has four capabilities and no network"):
    status = machine.succeed(f"cat /proc/{main_pid(machine)}/status")
    capabilities = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    # CHOWN, DAC_OVERRIDE, FOWNER, FSETID
    mask = f"{1 << 0 | 1 << 1 | 1 << 3 | 1 << 4:016x}"
    assert capabilities["CapBnd"] == capabilities["CapPrm"] == capabilities["CapEff"] == mask, capabilities
    assert int(capabilities["CapInh"], 16) == int(capabilities["CapAmb"], 16) == 0, capabilities
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status
    devices = machine.succeed(f"cat /proc/{main_pid(machine)}/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"], devices

with subtest("what its sandbox allows, tried inside it"):
    other = ("ExecStart=", "ExecReload=", "Type=", "WatchdogSec=", "Restart", "Requires=", "Environment=", "StartLimit")
    unit = [line for line in machine.succeed("systemctl cat cvmfs-snapshotter.service").splitlines() if not line.startswith(other)]
    unit.insert(
        unit.index("[Service]") + 1,
        "Type=oneshot\n"
        + "Environment=PATH=" + machine.succeed("echo $PATH").strip() + "\n"
        + "ExecStart=" + machine.succeed("command -v bash").strip() + f" /etc/testbed/sandbox-probe.sh {ROOT}",
    )
    text = "\n".join(unit)
    machine.succeed(f"cat > /run/systemd/system/sandbox-probe.service <<'END'\n{text}\nEND")
    machine.succeed("systemctl daemon-reload")
    result, _ = machine.systemctl("start sandbox-probe.service")
    journal = machine.succeed("journalctl --unit sandbox-probe.service --output cat")
    assert result == 0, journal

with subtest("what it refuses is possible elsewhere"):
    output = machine.execute("mkdir /var/lib/elsewhere; bash /etc/testbed/sandbox-probe.sh /var/lib/elsewhere")[1]
    refused = machine.succeed("grep --count \"^refused '\" /etc/testbed/sandbox-probe.sh").strip()
    assert output.count("possible, but should not be") == int(refused), (refused, output)

with subtest("the socket, the state and another user"):
    shown = machine.succeed(f"stat -c %a:%U {SOCKET} $(dirname {SOCKET}) {ROOT} {ROOT}/snapshots").split()
    assert shown == ["600:root", "700:root", "700:root", "700:root"], shown
    machine.fail("runuser -u nobody -- cvmfs-snapshotter health")
    machine.fail(f"runuser -u nobody -- ls {ROOT}")
