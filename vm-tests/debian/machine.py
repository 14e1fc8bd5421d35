"""The machine of a test, with the interface that the NixOS test driver gives to test scripts."""

import base64
import ctypes
import os
import re
import signal
import socket
import subprocess
import time

# Seconds, as in the NixOS test driver.
LIMIT = 900


class TestTimeout(Exception):
    """The whole test took too long. Not a TimeoutError, which a socket raises as well."""


def retry(check, timeout, what):
    """Calls `check` every second until it is true; fails after `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if check():
            return
        time.sleep(1)
    if not check():
        raise AssertionError(f"timed out after {timeout} seconds: {what}")


def die_with_parent():
    """Runs in the child: whatever kills the driver, kills the machine too."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Machine:
    """What is the same for all kinds of machine. A kind has `command`, which starts it and has it connect to a socket."""

    nice = 1

    def __init__(self, name, folder, log):
        """Sockets are made in `folder`."""
        self.name, self.folder = name, folder
        self.log = lambda text: log(f"{name}: {text}")
        self.process = self.shell = None
        self.requests = 0

    # Power

    def start(self, allow_reboot=False):
        if self.process:
            return
        self.allow_reboot = allow_reboot
        path = self.folder / "shell"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            self.log("starting")
            self.received, self.connected = b"", False
            self.process = subprocess.Popen(
                self.command(path), stdin=subprocess.DEVNULL, preexec_fn=self.prepare_process
            )
            self.shell = self.accept(listener)

    def prepare_process(self):
        die_with_parent()
        os.nice(self.nice)

    def accept(self, listener):
        """Waits for the machine to connect, as long as it runs."""
        listener.settimeout(1)
        for _ in range(LIMIT):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.name} has ended") from None
        raise RuntimeError(f"{self.name} does not answer")

    def crash(self):
        """Ends the machine at once."""
        if self.process:
            self.log("the power is cut")
            self.process.kill()
            self.wait_for_shutdown()

    def release(self):
        """Ends the machine, and removes what is left of it."""
        self.crash()

    def shutdown(self):
        if self.process:
            self.log("shutting down")
            self.send("systemctl poweroff", 0)
            self.wait_for_shutdown()

    def reboot(self):
        # A machine of the NixOS test driver just ends.
        assert self.allow_reboot, f"{self.name} was not started with allow_reboot=True"
        self.shutdown()
        self.start(allow_reboot=True)

    def wait_for_shutdown(self):
        if not self.process:
            return
        self.process.wait(timeout=LIMIT)
        if self.shell:
            self.shell.close()
        self.process = self.shell = None

    # Commands

    def send(self, command, timeout):
        self.start()
        if not self.connected:
            self.log("waiting for its shell")
            while self.line(LIMIT) != "ready":
                pass
            self.connected = True
        self.requests += 1
        # Unlike those of the run that was resumed.
        number = f"{os.getpid()}-{self.requests}"
        encoded = base64.b64encode(f"set -euo pipefail; {command}".encode()).decode()
        self.shell.sendall(f"{number} {timeout} {encoded}\n".encode())
        return number

    def line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.received:
            self.shell.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self.shell.recv(1 << 16)
            if not data:
                raise RuntimeError(f"{self.name} has gone")
            self.received += data
        line, self.received = self.received.split(b"\n", 1)
        return line.decode().strip()

    def execute(self, command, check_return=True, check_output=True, timeout=LIMIT):
        """The exit status and the output of a command, which runs with `set -euo pipefail`."""
        number = self.send(command, timeout or 0)
        if not check_output:
            return -2, ""
        while True:
            answer = self.line((timeout or 10 * LIMIT) + 60).split(" ")
            if answer[0] == number:
                break
        output = base64.b64decode(answer[2] if len(answer) > 2 else "").decode(errors="replace")
        return (int(answer[1]) if check_return else -1), output

    def logged(self, what, command, timeout):
        start = time.monotonic()
        status, output = self.execute(command, timeout=timeout)
        self.log(f"{what}: {command} -> {status} ({time.monotonic() - start:.1f} s)")
        if output:
            self.log("  | " + output.rstrip().replace("\n", "\n  | "))
        return status, output

    def succeed(self, *commands, timeout=None):
        outputs = []
        for command in commands:
            status, output = self.logged("must succeed", command, timeout)
            if status != 0:
                raise AssertionError(f"`{command}` failed with status {status}: {output}")
            outputs.append(output)
        return "".join(outputs)

    def fail(self, *commands, timeout=None):
        outputs = []
        for command in commands:
            status, output = self.logged("must fail", command, timeout)
            if status == 0:
                raise AssertionError(f"`{command}` succeeded, but should not: {output}")
            outputs.append(output)
        return "".join(outputs)

    def wait_until_succeeds(self, command, timeout=LIMIT):
        return self.wait_until(lambda status: status == 0, "waiting for success", command, timeout)

    def wait_until_fails(self, command, timeout=LIMIT):
        return self.wait_until(lambda status: status != 0, "waiting for failure", command, timeout)

    def wait_until(self, right, what, command, timeout):
        output = ""

        def check():
            nonlocal output
            status, output = self.logged(what, command, timeout)
            return right(status)

        retry(check, timeout, f"{what}: {command}")
        return output

    def sleep(self, seconds):
        self.succeed(f"sleep {seconds}")

    # Units, files and ports

    def systemctl(self, query, user=None):
        if user is not None:
            query = f"--user --machine={user}@ {query}"
        return self.logged("calling", f"systemctl {query}", LIMIT)

    def get_unit_info(self, unit, user=None):
        status, output = self.systemctl(f"--no-pager show '{unit}'", user)
        if status != 0:
            raise AssertionError(f"no state of {unit}: {output}")
        return dict(re.findall(r"^([^=\n]+)=(.*)$", output, re.MULTILINE))

    def get_unit_property(self, unit, name, user=None):
        status, output = self.systemctl(f"--no-pager show '{unit}' --property={name} --value", user)
        if status != 0:
            raise AssertionError(f"no {name} of {unit}: {output}")
        if not output:
            raise AssertionError(f"{unit} has no property {name}")
        return output.strip()

    def require_unit_state(self, unit, require_state="active"):
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise AssertionError(f"{unit} is {state}, but should be {require_state}")

    def wait_for_unit(self, unit, user=None, timeout=LIMIT):
        """Waits until the unit is active; fails if it has failed, or is inactive with nothing left to start."""

        def is_active():
            state = self.get_unit_property(unit, "ActiveState", user)
            if state == "failed":
                raise AssertionError(f"{unit} has failed")
            if state == "inactive" and "No jobs" in self.systemctl("list-jobs --full 2>&1", user)[1]:
                state = self.get_unit_property(unit, "ActiveState", user)
                if state == "inactive":
                    raise AssertionError(f"{unit} is inactive, and there are no pending jobs")
            return state == "active"

        retry(is_active, timeout, f"{unit} becomes active")

    def start_job(self, unit, user=None):
        return self.systemctl(f"start {unit}", user)

    def stop_job(self, unit, user=None):
        return self.systemctl(f"stop {unit}", user)

    def wait_for_file(self, path, timeout=LIMIT):
        self.wait_until_succeeds(f"test -e {path}", timeout)

    def wait_for_open_port(self, port, addr="localhost", timeout=LIMIT):
        self.wait_until_succeeds(f"nc -z {addr} {port}", timeout)

    def wait_for_closed_port(self, port, addr="localhost", timeout=LIMIT):
        self.wait_until_fails(f"nc -z {addr} {port}", timeout)

    def wait_for_open_unix_socket(self, addr, is_datagram=False, timeout=LIMIT):
        self.wait_until_succeeds(f"nc -z {'-uU' if is_datagram else '-U'} {addr}", timeout)
