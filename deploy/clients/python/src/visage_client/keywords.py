"""Keyword arguments that several functions share, and their check."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import FieldViolation, UnknownKeyword, invalid


def check(function: str, given: Mapping[str, Any], accepted: Iterable[str]) -> None:
    """Raises UnknownKeyword, which is a TypeError, for the first keyword that is not accepted."""
    names = sorted(accepted)
    for name in given:
        if name not in names:
            raise invalid([FieldViolation(name, f"is not a keyword argument of {function}{suggestion(name, names)}")], UnknownKeyword)


def suggestion(name: str, names: list[str]) -> str:
    """The closest of the names, and the list of all."""
    close = difflib.get_close_matches(name, names, 1)
    question = f"; did you mean `{close[0]}`?" if close else "."
    return f"{question} Accepted: {', '.join(names)}"
