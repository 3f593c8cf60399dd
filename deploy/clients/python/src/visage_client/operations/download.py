"""Downloads of files of versions and checkpoints."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from typing import Any, BinaryIO

import grpc

from ..errors import VisageError
from ..session import Session
from ..steps import Blocking, Read, Steps


def download(session: Session, method: Any, request: Any, path: str | os.PathLike[str]) -> Steps[None]:
    """Writes the streamed file to `path`. The file appears complete or not at all."""
    target = pathlib.Path(path)
    stream = method(request)
    digest, described, size = hashlib.sha256(), None, 0
    temporary: Any = None
    try:
        while (response := (yield Read(stream))) is not None:
            session.note_contact()
            if temporary is None:
                described = response.file
                # Beside the target, because a file can be renamed within one file system only.
                temporary = yield Blocking(lambda: tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False))
            data = response.data
            digest.update(data)
            size += len(data)
            yield Blocking(lambda: temporary.write(data))
        if described is None or (size, digest.hexdigest()) != (described.size_bytes, described.sha256):
            raise VisageError(grpc.StatusCode.DATA_LOSS, f"failed to download {target.name}: {size} bytes were received whose SHA-256 is not the announced one")
        yield Blocking(lambda: publish(temporary, target))
    except VisageError as error:
        raise session.explained(error) from error.__cause__
    finally:
        stream.cancel()
        if temporary is not None:
            temporary.close()
            pathlib.Path(temporary.name).unlink(missing_ok=True)


def publish(temporary: BinaryIO, target: pathlib.Path) -> None:
    """Renames a complete file to its name, with the permissions of any new file."""
    temporary.flush()
    os.fsync(temporary.fileno())
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary.name, 0o666 & ~mask)
    os.replace(temporary.name, target)
