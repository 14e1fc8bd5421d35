#!/usr/bin/env python3
"""Compares a unit in dist/systemd with the one that the NixOS module renders.

    compare.py OURS RENDERED

Everything has to be the same but the paths of programs, what NixOS adds to every unit, and [Install].
"""

import pathlib
import sys

# What NixOS adds; programs lie elsewhere.
IGNORED = {"ExecStart", "ExecReload", "X-Restart-Triggers", "X-StopIfChanged", "X-RestartIfChanged"}
BOOLEANS = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false"}
# Lists whose order means nothing.
WORDS = {"After", "Before", "Requires", "CapabilityBoundingSet", "RestrictAddressFamilies"}


def directives(path):
    """section.key -> values in order; an empty value stands for the empty list."""
    found, section = {}, ""
    for line in pathlib.Path(path).read_text().splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = line.strip("[]")
            continue
        key, value = (part.strip() for part in line.split("=", 1))
        if key == "Environment":
            # NixOS adds PATH and the like.
            value = value.strip('"')
            if not value.startswith("GLIBC_TUNABLES="):
                continue
        if section == "Install" or key in IGNORED:
            continue
        values = sorted(value.split()) if key in WORDS else [BOOLEANS.get(value, value)]
        found.setdefault(f"{section}.{key}", []).extend(values)
    return {key: sorted(values) if key.split(".")[1] in WORDS else values for key, values in found.items()}


def main():
    ours, rendered = directives(sys.argv[1]), directives(sys.argv[2])
    different = [key for key in sorted(ours | rendered) if ours.get(key) != rendered.get(key)]
    for key in different:
        print(f"{key}: {sys.argv[1]} has {ours.get(key)}, the module {rendered.get(key)}")
    sys.exit(bool(different))


if len(sys.argv) != 3:
    sys.exit(__doc__)
main()
