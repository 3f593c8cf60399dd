"""Predictions, faces, intervals and explanations."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, field

from .message import Value


@dataclass(frozen=True, repr=False)
class Interval(Value, message="Interval"):
    """Range of ages that contains the true age with this confidence."""

    # Years, at least 0.
    lower: float
    # Years.
    upper: float
    # Share of true ages that the interval covers, 0 to 1.
    confidence: float

    def __repr__(self) -> str:
        return f"{self.lower:.1f} to {self.upper:.1f} at {100 * self.confidence:.0f} %"


@dataclass(frozen=True, repr=False)
class Box(Value, message="FaceBox"):
    """Rectangle in pixels of the upright image; may extend beyond it."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, repr=False)
class Explanation(Value, message="Explanation"):
    """Contribution of each cell of a grid over the image to the age; all `years` and `base_years` add up to the age."""

    rows: int
    columns: int
    # Years per cell in row-major order from the top left, negative where the cell lowers the age.
    years: tuple[float, ...] = field(repr=False)
    # Years without evidence from the image.
    base_years: float


@dataclass(frozen=True, repr=False)
class Face(Value, message="FacePrediction"):
    """Predicted age of one detected face."""

    # Years, at least 0.
    age: float
    # None if the version is not calibrated.
    interval: Interval | None
    # Square that was predicted on.
    box: Box
    # Confidence of the detector, at least 2.8, typically 5 to 30.
    score: float
    # With `explain` only.
    explanation: Explanation | None = None
    # The explanation over the face; with `explain` only, else None.
    explanation_png: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, repr=False)
class Prediction(Value, message="Prediction"):
    """The predicted age of one image."""

    # Years, at least 0. With `detect_faces` that of the first face, or NaN without a face.
    age: float
    # None if the version is not calibrated.
    interval: Interval | None
    # Size of the upright image in pixels.
    width: int
    height: int
    # `models/{model}/versions/{n}`.
    model_version: str
    # Detected faces, the largest and most certain first; with `detect_faces` only.
    faces: tuple[Face, ...] = ()
    # With `explain` only; with `detect_faces` each face has its own.
    explanation: Explanation | None = None
    # The image with the age drawn on it; with `annotate` only, else None.
    annotated_png: bytes | None = field(default=None, repr=False)
    # The explanation over the image; with `explain` only, else None.
    explanation_png: bytes | None = field(default=None, repr=False)
    # The file, if the image was given as a path.
    source: pathlib.Path | None = None

    def __repr__(self) -> str:
        age = "no face" if math.isnan(self.age) else f"{self.age:.1f} years"
        parts = [age, self.interval, self.model_version, self.source, f"{len(self.faces)} faces" if len(self.faces) > 1 else None]
        return f"Prediction({', '.join(str(part) for part in parts if part is not None)})"
