"""The archive to upload: a file as it is, or a directory packed into a temporary tar.

The tar of an unchanged directory always has the same bytes (sorted names; fixed modes, owners and times), so that a
later call can continue an interrupted upload. The digest of the bytes shows whether they are the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from .images import SUFFIXES
from .values.dataset import Progress

MANIFESTS = {".csv", ".tsv"}
BLOCK_BYTES = 1 << 20


class Archive:
    """An open archive, its length in bytes and its SHA-256."""

    def __init__(self, source: str | os.PathLike[str], on_progress: Callable[[Progress], None] | None = None) -> None:
        """Opens a file, or packs a directory; raises FileNotFoundError, or ValueError for a directory without images."""
        path = pathlib.Path(source)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file or directory", str(path.absolute()))
        self.file: BinaryIO = packed(path, on_progress) if path.is_dir() else path.open("rb")
        self.length = os.fstat(self.file.fileno()).st_size
        self.file.seek(0)
        digest = hashlib.sha256()
        while block := self.file.read(BLOCK_BYTES):
            digest.update(block)
        self.sha256 = digest.digest()

    def close(self) -> None:
        self.file.close()


def packed(directory: pathlib.Path, on_progress: Callable[[Progress], None] | None) -> BinaryIO:
    members = sorted(files_below(directory), key=lambda path: path.relative_to(directory).as_posix())
    if not any(is_image(path) for path in members):
        raise ValueError(f"{directory.absolute()} contains no image; expected files whose names start with the age, or are listed in a manifest.csv")
    total = sum(path.stat().st_size for path in members)
    done = 0
    # Without a name, so that it never outlives the process.
    target: BinaryIO = tempfile.TemporaryFile()
    try:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path in members:
                if on_progress is not None:
                    on_progress(Progress("pack", done, total))
                with path.open("rb") as file:
                    member = tarfile.TarInfo(path.relative_to(directory).as_posix())
                    member.size = os.fstat(file.fileno()).st_size
                    member.mode = 0o644
                    tar.addfile(member, file)
                    done += member.size
        target.flush()
    except BaseException:
        target.close()
        raise
    return target


def files_below(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Images and manifests, with links followed, without hidden files."""
    seen: set[str] = set()
    for parent, directories, names in os.walk(directory, followlinks=True):
        # A link to a parent directory would be followed forever.
        real = os.path.realpath(parent)
        directories[:] = [] if real in seen else [name for name in directories if not name.startswith(".")]
        if real not in seen:
            seen.add(real)
            paths = (pathlib.Path(parent, name) for name in names if not name.startswith("."))
            yield from (path for path in paths if path.is_file() and (is_image(path) or path.suffix.lower() in MANIFESTS))


def is_image(path: pathlib.Path) -> bool:
    """True for the suffix of an image, or without a suffix for the first bytes of one."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
