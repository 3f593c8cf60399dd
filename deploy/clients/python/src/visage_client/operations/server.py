"""Information about the server."""

from __future__ import annotations

from visage.v1 import system_pb2

from ..session import Session, call
from ..steps import Steps
from ..values.message import convert
from ..values.server import ServerInfo


def info(session: Session) -> Steps[ServerInfo]:
    """Returns version, device, limits and disk use of the server."""
    return convert(ServerInfo, (yield from call(session, session.system_stub.GetServerInfo, system_pb2.GetServerInfoRequest())))
