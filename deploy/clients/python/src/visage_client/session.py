"""Connection to one server: address, channel options, deadlines, and retries of unary calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import grpc

from visage.v1 import dataset_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc, system_pb2_grpc, training_pb2_grpc

from .access import Access, host_of, is_local
from .backoff import Backoff
from .errors import Unavailable, VisageError
from .steps import Call, Sleep, Steps
from .values.server import Limits

# Responses contain annotated images, which exceed gRPC's default of 4 MiB.
MAX_RESPONSE_BYTES = 256 << 20
# Seconds during which a unary call is repeated after the connection was lost, as by a restart of
# the server.
RETRY_SECONDS = 10.0
OPTIONS = {
    "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
    "grpc.max_send_message_length": -1,
    # Detects a vanished machine, also during a stream without events.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    # gRPC's default delay between connection attempts is up to two minutes.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 1_000,
    "grpc.max_reconnect_backoff_ms": 5_000,
}


class Session:
    """State that the operations of both clients share.

    Args:
        access: Address and credentials of the server.
        patience: Seconds without contact after which a followed training or a prediction fails.
        connect_timeout: Seconds after which the first calls fail if no server responds at the address.
        timeout: Deadline of a unary call in seconds; None disables it.
    """

    def __init__(self, access: Access, channel: Any, patience: float, connect_timeout: float, timeout: float | None) -> None:
        self.access = access
        self.target = access.target
        self.patience = patience
        self.connect_timeout = connect_timeout
        self.timeout = timeout
        self.channel = channel
        self.has_connected = False
        # Known after the first prediction, until the connection is lost.
        self.limits: Limits | None = None
        self.dataset_stub: Any = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.model_stub: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.prediction_stub: Any = prediction_pb2_grpc.PredictionServiceStub(channel)
        self.system_stub: Any = system_pb2_grpc.SystemServiceStub(channel)
        self.training_stub: Any = training_pb2_grpc.TrainingServiceStub(channel)

    def __str__(self) -> str:
        return self.target

    def note_contact(self) -> None:
        self.has_connected = True

    def delay_after(self, error: VisageError, backoff: Backoff) -> float:
        """Returns the delay before the next attempt; raises an error that is not retryable.

        Before the first contact the attempts end after `connect_timeout`.
        """
        if error.is_of_the_connection:
            self.limits = None
        else:
            self.note_contact()
        try:
            return backoff.delay_after(error, math.inf if self.has_connected else self.connect_timeout)
        except VisageError as final:
            raise self.explained(final) from final.__cause__

    def explained(self, error: VisageError) -> VisageError:
        """An error of the connection as a sentence with the address; any other error unchanged."""
        if not error.is_of_the_connection or error.reason is not None:
            return error
        # gRPC nests its errors, the innermost last.
        cause = error.message.rsplit(": ", 1)[-1].strip("] ")
        if self.has_connected:
            return Unavailable(error.code, f"the connection to {self.target} was lost: {cause}")
        remedy = self.tls_remedy(error.message)
        if remedy is not None:
            return Unavailable(error.code, f"failed to connect to {self.target}: {remedy}")
        return Unavailable(error.code, f"failed to connect to {self.target}: {cause}; start a server with `visage serve`, or pass its address")

    def tls_remedy(self, message: str) -> str | None:
        """The remedy of a failure of TLS; None for other messages of gRPC."""
        if "CERTIFICATE_VERIFY_FAILED" in message:
            reason = message.rsplit("CERTIFICATE_VERIFY_FAILED", 1)[-1].strip(":]. ")
            return f"the server's certificate is not trusted ({reason}); pass the certificate of its authority as ca, or correct the certificate"
        if "Peer name" in message or "Hostname Verification" in message:
            return "the server's certificate is for another name; use a name of the certificate as the address"
        if "WRONG_VERSION_NUMBER" in message:
            return "the server does not speak TLS; omit https://, ca, cert and key"
        return None

    @property
    def host(self) -> str:
        """Host of the target, without scheme and port; empty for a Unix socket."""
        return host_of(self.target)

    @property
    def is_local(self) -> bool:
        """True if the target is this machine, so that paths here are probably paths of the server."""
        return is_local(self.host)


def options(more: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Options of a channel; those of the caller override the defaults."""
    return list({**OPTIONS, **more}.items())


def call(session: Session, method: Any, request: Any, *, is_repeatable: bool = True, has_deadline: bool = True) -> Steps[Any]:
    """Calls a unary method, and repeats the call if the connection is lost."""
    backoff = Backoff(RETRY_SECONDS if is_repeatable else 0.0)
    while True:
        try:
            response = yield Call(method, request, session.timeout if has_deadline else None)
        except VisageError as error:
            # A full queue of trainings does not drain within seconds.
            if not error.is_of_the_connection:
                session.note_contact()
                raise
            yield Sleep(session.delay_after(error, backoff))
        else:
            session.note_contact()
            return response


def paged(session: Session, method: Any, request: Any, field: str, limit: int | None = None) -> Steps[list[Any]]:
    """The items of all pages of a list, at most `limit`."""
    found: list[Any] = []
    request.page_size = 1000 if limit is None else min(limit, 1000)
    while True:
        page = yield from call(session, method, request)
        found.extend(getattr(page, field))
        if not page.next_page_token or (limit is not None and len(found) >= limit):
            return found[:limit]
        request.page_token = page.next_page_token
