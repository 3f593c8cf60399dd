"""TLS and credentials of a client, for the gRPC port and the HTTP port."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
import warnings
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc


@dataclass(frozen=True)
class Access:
    """Address, TLS files and token of a server; the token never appears in its text."""

    # As gRPC expects it, without a scheme.
    target: str
    is_tls: bool
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, target: str, token: str | None, token_file: str | os.PathLike[str] | None, ca: str | os.PathLike[str] | None,
           cert: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None, has_credentials: bool = False) -> Access:
        """Checks the arguments of a client; raises ValueError.

        A server has TLS if its address starts with `https://` or if files of TLS are given.
        """
        if token is not None and token_file is not None:
            raise ValueError("token and token_file must not both be given")
        if (cert is None) != (key is None):
            raise ValueError("cert and key must be given together")
        scheme, bare = target.split("://", 1) if target.startswith(("http://", "https://")) else ("", target)
        has_files = ca is not None or cert is not None
        if scheme == "http" and has_files:
            raise ValueError(f"ca, cert and key are for TLS; use https:// instead of {target}")
        if token_file is not None:
            token = read_token(os.fspath(token_file))
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ValueError("token must consist of visible ASCII characters")
        found = cls(bare.rstrip("/") if scheme else bare, scheme == "https" or has_files or has_credentials, token, *map(path, (ca, cert, key)))
        if token is not None and not found.is_tls and not is_local(host_of(found.target)):
            raise ValueError(f"a token must not be sent to {found.target} in plain text; use https://{found.target}, or a tunnel to a loopback address")
        return found

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel with TLS, with the token."""
        channel = grpc.ssl_channel_credentials(content(self.ca), content(self.key), content(self.cert))
        if self.token is None:
            return channel
        return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(self.token))

    def plain_metadata(self) -> tuple[tuple[str, str], ...]:
        """The token as metadata of calls over a loopback address, which gRPC's call credentials do not support."""
        return () if self.token is None or self.is_tls else (("authorization", f"Bearer {self.token}"),)

    def headers(self, url: str) -> dict[str, str]:
        """Headers of a request to the HTTP port; raises ValueError for a URL that would expose the token."""
        if self.token is None:
            return {}
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_local(parts.hostname or ""):
            raise ValueError(f"a token must not be sent to {url} in plain text; use https://")
        return {"authorization": f"Bearer {self.token}"}

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


def path(name: str | os.PathLike[str] | None) -> str | None:
    return None if name is None else os.fspath(name)


def content(name: str | None) -> bytes | None:
    if name is None:
        return None
    with open(name, "rb") as file:
        return file.read()


def read_token(name: str) -> str:
    """The token of a file; warns if other users can read it."""
    if os.stat(name).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.warn(f"other users can read {name}; restrict it with chmod 600", stacklevel=4)
    with open(name, encoding="utf-8") as file:
        return file.read().strip()


def host_of(target: str) -> str:
    """Host of a target of gRPC, without scheme and port; empty for a Unix socket."""
    if target.startswith("unix"):
        return ""
    address = re.sub(r"^(?:dns:(?://[^/]*/)?|ipv[46]:)", "", target)
    # An IPv6 address has brackets if a port follows.
    return re.sub(r":\d+$", "", address).strip("[]") if address.startswith("[") or address.count(":") == 1 else address


def is_local(host: str) -> bool:
    """True for this machine; an empty host is that of a Unix socket."""
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Details(grpc.ClientCallDetails):
    """The details of a call with other metadata."""

    def __init__(self, details: Any, metadata: Any) -> None:
        self.method, self.timeout, self.metadata = details.method, details.timeout, metadata
        self.credentials, self.wait_for_ready = details.credentials, details.wait_for_ready
        self.compression = getattr(details, "compression", None)


class Plain(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor,
            grpc.StreamStreamClientInterceptor):
    """Adds metadata to the calls of a blocking channel."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(_Details(details, [*(details.metadata or ()), *self._metadata]), request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator)


def aio_interceptors(metadata: tuple[tuple[str, str], ...]) -> list[Any]:
    """Interceptors that add metadata to the calls of a channel of asyncio, one for each kind of call."""

    async def intercept(_: Any, continuation: Any, details: Any, request: Any) -> Any:
        merged = grpc.aio.Metadata(*(details.metadata or ()), *metadata)
        return await continuation(details._replace(metadata=merged), request)

    kinds = {"unary_unary": grpc.aio.UnaryUnaryClientInterceptor, "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
             "stream_unary": grpc.aio.StreamUnaryClientInterceptor, "stream_stream": grpc.aio.StreamStreamClientInterceptor}
    return [type(f"Plain_{kind}", (base,), {f"intercept_{kind}": intercept})() for kind, base in kinds.items()] if metadata else []
