"""Move an image from a folder in the OCI layout to the node, without the layers that the node has, keeping no copy.

The trial image with CUDA PyTorch has 5.8 GB, nearly all of it in layers that change only with the dependencies. After a
layer was moved, its file in the folder is replaced by a hollow one: of the same length, but without content on the disk.
Such a file tells skopeo that the layer need not be written again, and us that it need not be moved again.
"""

import contextlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cluster.machine import Machine

NODE_SOCKET = "/run/containerd.sock"
"""Of the node's containerd. Like all of /run it is in the machine's namespaces and not on the host."""
_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
WORTH_HOLLOWING = 1_000_000
"""Bytes. NB: some file systems keep small files in their inode, and these seem to take no space either."""


class ImageError(RuntimeError):
    """An image cannot be built or moved; the message says why."""


def move(layout: Path, name: str, machine: Machine) -> None:
    """Bring the image `name` of a folder in the OCI layout to the node.

    Raises:
        ImageError: The node refused it; it does so when it lacks a layer that is hollow here.
    """
    manifest = _manifest(layout, name)
    with start_import(machine, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # when it ends early, its return code says so
            _write_archive(importing.stdin, layout, name, manifest)
    if importing.returncode != 0:
        raise ImageError(f"The node refused {name}; what it said stands above.")
    for layer in manifest["content"]["layers"]:
        _hollow_out(_blob(layout, layer))


def start_import(machine: Machine, *, stdin: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
    """A process that reads an archive of images and adds them to what the node has."""
    command = machine.command("ctr", f"--address={NODE_SOCKET}", "--namespace=k8s.io", "images", "import", "-")
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL)


def _manifest(layout: Path, name: str) -> dict[str, Any]:
    """The descriptor of an image's manifest, with the manifest itself under "content"."""
    index = json.loads((layout / "index.json").read_text())
    # NB: an earlier image of the same name stays in the index, without its name.
    entry = next(item for item in index["manifests"] if item.get("annotations", {}).get(_NAME_ANNOTATION) == name)
    return {**entry, "content": json.loads(_blob(layout, entry).read_text())}


def _blob(layout: Path, descriptor: Mapping[str, Any]) -> Path:
    algorithm, _, digest = str(descriptor["digest"]).partition(":")
    return layout / "blobs" / algorithm / digest


def _write_archive(stream: IO[bytes], layout: Path, name: str, manifest: Mapping[str, Any]) -> None:
    """Write an OCI archive of one image, without its hollow layers."""
    entry = {key: manifest[key] for key in ("mediaType", "digest", "size")}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"io.containerd.image.name": name}}]}
    blobs = [
        _blob(layout, descriptor)
        for descriptor in (manifest, *manifest["content"]["layers"], manifest["content"]["config"])
    ]
    with tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20) as archive:
        _add(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        for blob in blobs:
            if not _is_hollow(blob):
                archive.add(blob, arcname=str(blob.relative_to(layout)))
        _add(archive, "index.json", index)


def _add(archive: tarfile.TarFile, name: str, document: object) -> None:
    content = json.dumps(document).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _is_hollow(blob: Path) -> bool:
    status = blob.stat()
    return status.st_blocks == 0 and status.st_size >= WORTH_HOLLOWING


def _hollow_out(blob: Path) -> None:
    size = blob.stat().st_size
    if size < WORTH_HOLLOWING or _is_hollow(blob):
        return
    hollow = blob.with_suffix(".hollow")
    with hollow.open("wb") as file:
        file.truncate(size)
    hollow.replace(blob)
