"""Calls that stream progress and then one report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import VisageError
from ..session import Session
from ..steps import Read, Steps
from ..values.dataset import Progress
from ..values.message import convert


def report(session: Session, method: Any, request: Any, timeout: float | None, on_progress: Callable[[Progress], None] | None) -> Steps[tuple[Any, list[Any]]]:
    """The report of a call, and the messages that are neither progress nor the report. `on_progress` receives the progress."""
    stream = method(request, timeout=timeout)
    others: list[Any] = []
    found: Any = None
    try:
        while (response := (yield Read(stream))) is not None:
            session.note_contact()
            kind = response.WhichOneof("kind")
            if kind == "report":
                found = response.report
            elif kind != "progress":
                others.append(response)
            elif on_progress is not None:
                on_progress(convert(Progress, response.progress))
    except VisageError as error:
        raise session.explained(error) from error.__cause__
    finally:
        stream.cancel()
    if found is None:
        raise RuntimeError("the server ended the call without a report")
    return found, others
