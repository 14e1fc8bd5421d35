"""What the NixOS module renders for the machines: the kept rendering while it is current, else a new one."""

import hashlib
import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
KEPT = HERE / "rendered"


def inputs():
    """Tells apart all that could be rendered differently."""
    paths = [PROJECT / "flake.nix", PROJECT / "flake.lock", HERE / "render", HERE / "render.nix"]
    paths += [path for folder in ["nix", "nixos-module"] for path in (PROJECT / folder).rglob("*") if path.is_file()]
    paths += [path for path in (PROJECT / "vm-tests").rglob("*.nix")]
    digest = hashlib.sha256()
    for path in sorted({str(path.relative_to(PROJECT)) for path in paths}):
        digest.update(f"{path} {hashlib.sha256((PROJECT / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_current(directory):
    kept = directory / "inputs"
    return kept.exists() and kept.read_text().strip() == inputs()


def current(work):
    """The folder of a rendering that is current; a new one is made in `work`."""
    new = work / "rendered"
    for directory in [KEPT, new]:
        if is_current(directory):
            return directory
    harness = pathlib.Path(os.environ.get("NIXEVAL", PROJECT.parent / "shared/nixeval"))
    home = os.environ.get("NIXEVAL_HOME") or os.environ.get("XDG_CACHE_HOME", os.environ["HOME"] + "/.cache") + "/nixeval"
    python = pathlib.Path(home) / "py/bin/python"
    if not python.exists() or not (harness / "bin/nix").exists():
        raise SystemExit(
            "vm-tests: the module or the tests have changed since vm-tests/debian/rendered was made, and the harness that"
            " renders them is not installed; .ci/nix-check says where it looks for it"
        )
    print("vm-tests: rendering the module and the tests, which have changed", flush=True)
    shutil.rmtree(new, ignore_errors=True)
    subprocess.run([python, HERE / "render", harness, new], check=True)
    return new
