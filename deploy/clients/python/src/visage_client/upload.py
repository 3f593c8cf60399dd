"""A resumable upload over HTTP (the tus protocol), which survives lost connections and restarts of the server."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from .access import Access
from .archive import Archive
from .backoff import Backoff
from .errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, VisageError
from .values.dataset import Progress

# Bytes per request; they are durable when its response arrives.
CHUNK_BYTES = 32 << 20
BLOCK_BYTES = 1 << 18
RESPONSE_SECONDS = 120
# Statuses with which another attempt may succeed: a wrong offset, a locked upload, a full server.
REPEATED = {408, 409, 423, 429}


class Uploader:
    """Sends an archive to the HTTP port; blocks."""

    def __init__(self, base: str, access: Access, archive: Archive, patience: float, on_progress: Callable[[Progress], None] | None) -> None:
        self._url = urllib.parse.urlsplit(base)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"http_url must be a URL such as http://host:50052, got {base!r}")
        self._headers = access.headers(base)
        self._context = access.ssl_context() if self._url.scheme == "https" else None
        self._archive = archive
        self._patience = patience
        self._on_progress = on_progress

    def send(self, resume: str | None) -> str:
        """Sends the bytes that the server does not have yet, and returns the id of the upload."""
        backoff = Backoff(self._patience)
        upload, best, is_checked = resume, 0, resume is None
        while True:
            try:
                upload = upload or self._create()
                if not is_checked:
                    self._check_content(upload)
                    is_checked = True
                offset = self._offset(upload)
                if offset > best:
                    best = offset
                    backoff.begin()
                while offset < self._archive.length:
                    offset = self._send_chunk(upload, offset)
                return upload
            except VisageError as error:
                try:
                    time.sleep(backoff.delay_after(error))
                except VisageError as final:
                    continuation = "" if upload is None or isinstance(final, NotFound) else f"; continue with resume={upload!r}"
                    raise type(final)(final.code, final.message + continuation, final.reason, (), final.retry_delay) from final.__cause__

    def _create(self) -> str:
        body, _ = self._request("POST", "", {"upload-length": str(self._archive.length), "upload-metadata": self._metadata()})
        return str(json.loads(body)["upload"])

    def _metadata(self) -> str:
        """The digest of the archive in the form of the tus protocol."""
        return "sha256 " + base64.b64encode(self._archive.sha256).decode()

    def _check_content(self, upload: str) -> None:
        """Raises InvalidArgument unless the upload was started with these contents."""
        _, headers = self._request("HEAD", f"/{upload}", {})
        found = headers.get("upload-metadata")
        if found == self._metadata():
            return
        if found is None:
            cause = f"the server does not know with which contents upload {upload} was started, so that it cannot be continued safely"
        else:
            cause = f"upload {upload} was started with other contents: files were changed, added or removed since"
        raise InvalidArgument(grpc.StatusCode.INVALID_ARGUMENT, f"{cause}; push without resume")

    def _offset(self, upload: str) -> int:
        _, headers = self._request("HEAD", f"/{upload}", {})
        return int(headers["upload-offset"])

    def _send_chunk(self, upload: str, offset: int) -> int:
        size = min(CHUNK_BYTES, self._archive.length - offset)
        headers = {"upload-offset": str(offset), "content-length": str(size), "content-type": "application/offset+octet-stream"}
        self._request("PATCH", f"/{upload}", headers, Part(self._archive, offset, size, self._on_progress))
        return offset + size

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> tuple[bytes, Any]:
        """The body and headers of a successful response; raises VisageError."""
        host, port = self._url.hostname or "", self._url.port
        connection = (http.client.HTTPConnection(host, port, timeout=RESPONSE_SECONDS, blocksize=BLOCK_BYTES) if self._context is None
                      else http.client.HTTPSConnection(host, port, timeout=RESPONSE_SECONDS, blocksize=BLOCK_BYTES, context=self._context))
        try:
            connection.request(method, f"{self._url.path.rstrip('/')}/datasets/uploads{path}", body, {**headers, **self._headers})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            text = f"the upload to {self._url.netloc} was interrupted: {error or type(error).__name__}"
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, text) from error
        finally:
            connection.close()
        if response.status < 300:
            return content, response.headers
        raise refusal(response.status, content)


class Part:
    """A part of the archive as the body of a request."""

    def __init__(self, archive: Archive, offset: int, size: int, on_progress: Callable[[Progress], None] | None) -> None:
        self._archive = archive
        self._position, self._end = offset, offset + size
        self._on_progress = on_progress
        archive.file.seek(offset)

    def read(self, size: int) -> bytes:
        if self._on_progress is not None:
            self._on_progress(Progress("upload", self._position, self._archive.length))
        data = self._archive.file.read(min(size, self._end - self._position))
        self._position += len(data)
        return data


def refusal(status: int, content: bytes) -> VisageError:
    """A response that is not a success."""
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the HTTP port responded with the status {status}"
    if status in REPEATED or status >= 500:
        return ResourceExhausted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, retry_delay=0.0)
    if status == 401:
        return Unauthenticated(grpc.StatusCode.UNAUTHENTICATED, text)
    if status == 403:
        return PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, text)
    if status == 404:
        return NotFound(grpc.StatusCode.NOT_FOUND, text)
    return InvalidArgument(grpc.StatusCode.INVALID_ARGUMENT, text)
