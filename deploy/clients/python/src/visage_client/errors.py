"""Errors of the API as exceptions, with reason, field violations and retry delay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

# Reasons that the class of the error and its message already contain.
OBVIOUS_REASONS = ("NOT_FOUND", "ALREADY_EXISTS", "INVALID_FIELDS")


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    description: str


class VisageError(Exception):
    """A failed call; the subclasses correspond to gRPC status codes."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str | None = None, violations: tuple[FieldViolation, ...] = (),
                 retry_delay: float | None = None) -> None:
        super().__init__(text(message, reason, violations))
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


class InvalidArgument(VisageError, ValueError):
    """The request is invalid; `violations` lists all invalid fields."""


class UnknownKeyword(InvalidArgument, TypeError):
    """The function does not accept the keyword argument; the message lists the accepted ones."""


class Unauthenticated(VisageError):
    """The server requires a credential, or refused the one that was sent; pass `token`, `token_file` or `cert` and `key`."""


class PermissionDenied(VisageError):
    """The credential lacks the role that the call requires."""


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


class Unimplemented(VisageError):
    """The server does not support the call; it is older than this package."""


class Unavailable(VisageError):
    """The server is unreachable or shutting down."""


class TrainingFailed(Exception):
    """A training ended as FAILED; `reason` is stable, such as `TOO_MANY_REJECTS`."""

    def __init__(self, training: str, reason: str, message: str) -> None:
        super().__init__(f"{training} failed ({reason}): {message}")
        self.reason = reason
        self.message = message


class DatasetFailed(Exception):
    """A dataset ended as FAILED; `message` names the cause, such as an archive entry that was refused."""

    def __init__(self, dataset: str, message: str) -> None:
        super().__init__(f"{dataset} failed: {message}")
        self.message = message


class MissingDependency(ImportError):
    """An optional package is not installed; the message names the extra of this package that installs it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} requires {package}: `pip install 'visage-client[{extra}]'`", name=package)


KINDS: dict[grpc.StatusCode, type[VisageError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}


def from_rpc(error: grpc.RpcError) -> VisageError:
    """Converts a failed call of either kind of channel, with its details."""
    code, reason, violations, delay = error.code(), None, [], None
    facts: dict[str, str] = {}
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, facts = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                violations += [FieldViolation(one.field, one.description) for one in bad.field_violations]
            elif detail.Unpack(retry):
                delay = retry.retry_delay.ToTimedelta().total_seconds()
    message = error.details() or ""
    if code == grpc.StatusCode.UNIMPLEMENTED:
        message = f"the server does not support the call, possibly because it is older than this package: {message}"
    if reason == "WEIGHTS_UNAVAILABLE":
        message = weights_text(facts) or message
    return KINDS.get(code, VisageError)(code, message, reason, tuple(violations), delay)


def weights_text(facts: Mapping[str, str]) -> str | None:
    """The message for unavailable ImageNet weights, with arguments of this package as remedies."""
    if not {"cause", "place"} <= facts.keys():
        return None
    return (f"the ImageNet weights are not on the server, and the Hugging Face hub is not available: {facts['cause']}; "
            f"pass recipe=\"FAST\" or init=\"STARTER\" to start from the built-in face model, "
            f"put torchvision's file resnet18-f37072fd.pth into {facts['place']}, or let the server reach the hub or a mirror that HF_ENDPOINT names")


def text(message: str, reason: str | None, violations: tuple[FieldViolation, ...]) -> str:
    """The message with all violations, and with the reason unless that only repeats the kind of the error."""
    if len(violations) > 1:
        message = f"{len(violations)} fields are invalid: " + "; ".join(map(sentence, violations))
    return message if reason in (None, *OBVIOUS_REASONS) else f"{message} ({reason})"


def invalid(violations: list[FieldViolation], kind: type[InvalidArgument] = InvalidArgument) -> InvalidArgument:
    """An error of a request that is not sent, in the form of an error of the server."""
    return kind(grpc.StatusCode.INVALID_ARGUMENT, sentence(violations[0]), "INVALID_FIELDS", tuple(violations))


def sentence(violation: FieldViolation) -> str:
    is_predicate = violation.description.startswith(("must ", "is "))
    return f"{violation.field}{' ' if is_predicate else ': '}{violation.description}"
