"""Resource names from their short forms."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .values.dataset import Dataset

if TYPE_CHECKING:
    from .session import Session


def version(version: int | str, model: str = "age") -> str:
    """`models/{model}/versions/{n or alias}` from a number, an alias or a full name."""
    text = str(version)
    return text if "/" in text else f"models/{model}/versions/{text}"


def training(training: str) -> str:
    """`trainings/{id}` from an id or a full name."""
    return training if "/" in training else f"trainings/{training}"


def dataset(dataset: str | Dataset) -> str:
    """`datasets/{id}` from an id, a full name or a dataset."""
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    return name if "/" in name else f"datasets/{name}"


def is_dataset(text: str) -> bool:
    """True for `datasets/{id}`, which is a named dataset and not a path."""
    return re.fullmatch(r"datasets/[a-z][a-z0-9-]*", text) is not None


def path(session: Session, path: str | os.PathLike[str]) -> str:
    """A path on the server.

    If the server runs on this machine and a relative path exists here, it is made absolute, since the server has
    another working directory. Any other path is sent as it is.
    """
    text = os.fspath(path)
    return os.path.abspath(text) if session.is_local and os.path.exists(text) else text
