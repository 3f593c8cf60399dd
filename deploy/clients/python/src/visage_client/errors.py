"""Errors of the API as exceptions, with reason, field violations and retry delay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    description: str


class VisageError(Exception):
    """A failed call; the subclasses correspond to gRPC status codes."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str | None = None, violations: tuple[FieldViolation, ...] = (),
                 retry_delay: float | None = None) -> None:
        super().__init__(f"{code.name}{f' ({reason})' if reason else ''}: {message}")
        self.code = code
        self.message = message
        # Stable identifier such as `NO_LIVE_MODEL`; None for errors of the transport.
        self.reason = reason
        self.violations = violations
        # Seconds after which the call may succeed; None if a retry does not help.
        self.retry_delay = retry_delay

    @property
    def is_of_the_connection(self) -> bool:
        """True if the connection was lost, which gRPC reports with any of these codes."""
        broken = self.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and self.reason is None
        return broken or self.code == grpc.StatusCode.UNAVAILABLE


class InvalidArgument(VisageError):
    """The request is invalid; `violations` lists all invalid fields."""


class NotFound(VisageError):
    """The training, version or other resource does not exist."""


class AlreadyExists(VisageError):
    """The id is already in use."""


class FailedPrecondition(VisageError):
    """The state does not allow the call: the training has ended, or no version is live."""


class Aborted(VisageError):
    """Another client changed the resource meanwhile."""


class ResourceExhausted(VisageError):
    """A queue is full; retry after `retry_delay` seconds."""


class DeadlineExceeded(VisageError):
    """The deadline passed before a response arrived."""


class Unavailable(VisageError):
    """The server is unreachable or shutting down."""


class TrainingFailed(Exception):
    """A training ended as FAILED; `reason` is stable, such as `TOO_MANY_REJECTS`."""

    def __init__(self, training: str, reason: str, message: str) -> None:
        super().__init__(f"{training} failed ({reason}): {message}")
        self.reason = reason
        self.message = message


KINDS: dict[grpc.StatusCode, type[VisageError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


def from_rpc(error: grpc.RpcError) -> VisageError:
    """Converts a failed call of either kind of channel, with its details."""
    code, reason, violations, delay = error.code(), None, [], None
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad):
                violations += [FieldViolation(one.field, one.description) for one in bad.field_violations]
            elif detail.Unpack(retry):
                delay = retry.retry_delay.ToTimedelta().total_seconds()
    return KINDS.get(code, VisageError)(code, error.details() or "", reason, tuple(violations), delay)


@contextmanager
def translated() -> Iterator[None]:
    """Converts gRPC errors raised inside the block to VisageError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from error
