"""A comparison of trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from .training import TrainingInfo

# Settings that have a row of their own.
OMITTED = ("dataset.path", "dataset.name")


@dataclass(frozen=True)
class Comparison:
    """Trainings side by side. `str` and `repr` are a table."""

    trainings: tuple[TrainingInfo, ...]

    @property
    def is_comparable(self) -> bool:
        """True if all trainings were validated on the same images."""
        digests = {one.dataset.val_digest if one.dataset else None for one in self.trainings}
        return len(digests) == 1 and None not in digests

    @property
    def settings(self) -> dict[str, tuple[Any, ...]]:
        """Settings other than the dataset that differ, by their path in TrainingSpec such as `optimizer.learning_rate`; None where unset."""
        flat = [flattened(one.resolved_spec) for one in self.trainings]
        paths = sorted({path for one in flat for path in one})
        values = {path: tuple(one.get(path) for one in flat) for path in paths}
        return {path: found for path, found in values.items() if any(value != found[0] for value in found) and path not in OMITTED}

    @property
    def best(self) -> TrainingInfo | None:
        """Training with the lowest validation MAE; None without an epoch, or if they are not comparable."""
        measured = [one for one in self.trainings if one.best is not None]
        return min(measured, key=val_mae) if measured and self.is_comparable else None

    def __repr__(self) -> str:
        rows = [["", *(one.name.removeprefix("trainings/") for one in self.trainings)],
                ["state", *(one.state for one in self.trainings)],
                ["dataset", *(one.resolved_spec.dataset.name or one.resolved_spec.dataset.path for one in self.trainings)],
                ["best epoch", *(shown(one.best and one.best.epoch) for one in self.trainings)],
                ["validation MAE", *(shown(one.best and one.best.val_mae) for one in self.trainings)],
                ["validation RMSE", *(shown(one.best and one.best.val_rmse) for one in self.trainings)],
                ["test MAE", *(shown(one.test and one.test.mae) for one in self.trainings)],
                ["seconds", *(shown(one.duration) for one in self.trainings)],
                ["version", *(one.model_version.rsplit("/", 1)[-1] for one in self.trainings)],
                *([path, *map(shown, values)] for path, values in self.settings.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        if not self.is_comparable:
            lines.append("The trainings were validated on different images, so their validation metrics cannot be compared.")
        return "\n".join(lines)


def val_mae(training: TrainingInfo) -> float:
    return training.best.val_mae if training.best is not None else float("inf")


def flattened(spec: Any) -> dict[str, Any]:
    """Fields of a message by their path; lists are values."""
    flat: dict[str, Any] = {}

    def add(prefix: str, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = value
    add("", json_format.MessageToDict(spec, preserving_proto_field_name=True))
    return flat


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return "-" if value is None else str(value)
