"""Makes the images of the VM tests, and a registry that cannot serve the layers of most of them.

    make-images.py BUSYBOX ARCHITECTURE OUT

OUT/oci           an OCI layout with all images, from which `unpack` makes repositories
OUT/registry      what a static web server has to show on 127.0.0.1:5000: manifests and configurations; blobs of
                  layers only where LAYERS_TO_DOWNLOAD says so, so that a pull of another layer can only succeed if
                  the snapshotter has it
OUT/digests.json  the digests of each image's layers, lowest first

BUSYBOX is a static busybox. Written with the standard library, because owners, set-id bits and whiteouts have to be in
the archives although no root is at work here.
"""

import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile

APPLETS = "cat chmod echo env false grep id ls mkdir rm sh sleep sort stat sync test touch true wc".split()


class Layer:
    """One layer, as a tar archive in the making."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, path, content=b"", mode=None, owner=(0, 0), type=tarfile.REGTYPE, target=""):
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname, entry.mtime = type, target, 1_000_000_000
        entry.uid, entry.gid = owner
        entry.mode = mode if mode is not None else (0o755 if type == tarfile.DIRTYPE else 0o644)
        entry.size = len(content)
        self.tar.addfile(entry, io.BytesIO(content))
        return self

    def directory(self, path, mode=0o755, owner=(0, 0)):
        return self.add(path, mode=mode, owner=owner, type=tarfile.DIRTYPE)

    def link(self, path, target):
        return self.add(path, type=tarfile.SYMTYPE, target=target, mode=0o777)

    def blob(self):
        """The compressed blob and its diff ID."""
        self.tar.close()
        tar = self.buffer.getvalue()
        return gzip.compress(tar, mtime=0), digest(tar)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def base(busybox):
    layer = Layer()
    for path in ["bin", "data", "data/old", "dev", "etc", "proc", "srv", "sys"]:
        layer.directory(path)
    layer.directory("tmp", mode=0o1777).directory("srv/shared", mode=0o2775, owner=(0, 8))
    layer.add("bin/busybox", busybox, mode=0o755)
    for applet in APPLETS:
        layer.link(f"bin/{applet}", "busybox")
    layer.add("etc/passwd", b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")
    layer.add("etc/group", b"root:x:0:\nmail:x:8:\napp:x:1000:\n")
    layer.add("etc/secret", b"of the lowest layer\n")
    layer.add("data/old/a", b"a\n").add("data/old/b", b"b\n")
    return layer.blob()


def changes():
    """Deletes a file, replaces a directory as a whole, and adds files, one of them of another owner."""
    layer = Layer().directory("etc").add("etc/.wh.secret")
    layer.directory("data").directory("data/old").add("data/old/.wh..wh..opq").add("data/old/new", b"new\n")
    layer.directory("app").add("app/message", b"from the repository\n")
    return layer.add("app/owned", b"mine\n", mode=0o600, owner=(1000, 1000)).blob()


def single(path, content):
    return Layer().directory(path.split("/")[0]).add(path, content).blob()


def images(busybox):
    lowest, empty = base(busybox), Layer().blob()
    app = [lowest, empty, changes(), empty, single("app/version", b"1\n")]
    return {
        "app:1": app,
        # The top-most layer has to be downloaded.
        "app:2": app + [single("app/version", b"2\n")],
        # Nothing of it is in a repository.
        "other:1": [base(busybox + b"\n"), single("app/message", b"downloaded\n")],
        # Shares its lowest layer with app.
        "extra:1": [lowest, single("app/message", b"from another repository\n")],
        "pause:1": [lowest],
    }


LAYERS_TO_DOWNLOAD = {"app:2": [-1], "other:1": [0, 1]}


def main():
    busybox, architecture, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    blobs, registry = out / "oci" / "blobs" / "sha256", out / "registry" / "v2"
    blobs.mkdir(parents=True)
    (out / "oci" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(data):
        (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
        return digest(data)

    def descriptor(kind, data):
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": put(data), "size": len(data)}

    index, digests = [], {}
    for name, layers in images(pathlib.Path(busybox).read_bytes()).items():
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
                "history": [{"created_by": "make-images.py"} for _ in layers],
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": descriptor("config.v1+json", config),
                "layers": [descriptor("layer.v1.tar+gzip", blob) for blob, _ in layers],
            }
        ).encode()
        entry = descriptor("manifest.v1+json", manifest)
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        entry["platform"] = {"architecture": architecture, "os": "linux"}
        index.append(entry)
        digests[name] = [digest(blob) for blob, _ in layers]

        repository, tag = name.split(":")
        shown = {("manifests", tag): manifest, ("manifests", digest(manifest)): manifest}
        shown["blobs", digest(config)] = config
        for position in LAYERS_TO_DOWNLOAD.get(name, []):
            shown["blobs", digest(layers[position][0])] = layers[position][0]
        for (kind, file), content in shown.items():
            path = registry / repository / kind / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    media_type = "application/vnd.oci.image.index.v1+json"
    (out / "oci" / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": index})
    )
    (out / "digests.json").write_text(json.dumps(digests))


main()
