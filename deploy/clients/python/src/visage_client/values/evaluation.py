"""Metrics of a model on a set of images."""

from __future__ import annotations

from dataclasses import dataclass, field

from .dataset import Rejects
from .message import Value


@dataclass(frozen=True, repr=False)
class PredictedImage(Value, message="PredictedImage"):
    """An image of a dataset with its true and predicted age in years."""

    # Path relative to the dataset.
    file: str
    age: float
    predicted: float
    # Prediction minus age.
    error: float


@dataclass(frozen=True, repr=False)
class Coverage(Value, message="IntervalCoverage"):
    """Share of true ages inside the prediction intervals."""

    # Nominal and observed coverage, 0 to 1.
    level: float
    coverage: float
    # Years.
    mean_width: float


@dataclass(frozen=True, repr=False)
class Group(Value, message="EvaluationGroup"):
    """Metrics of a decade of age (`key` is `age`) or of a label of the dataset, in years."""

    key: str
    value: str
    images: int
    mae: float
    rmse: float
    bias: float


@dataclass(frozen=True, repr=False)
class Evaluation(Value, message="Evaluation"):
    """Metrics of a version on a set of images."""

    images: int
    # Mean absolute error, root mean squared error and mean error (prediction minus age) in years.
    mae: float
    rmse: float
    bias: float
    # Shares of images with an error of at most 3, 5 and 10 years, 0 to 1.
    cs3: float
    cs5: float
    cs10: float
    # Mean absolute error of always predicting `baseline_age`, in years.
    baseline_mae: float
    baseline_age: float
    # Coefficient of determination; None if all ages are equal.
    r2: float | None
    # Number of these images that the version was trained on; None if that is not recorded.
    trained_on_images: int | None
    # None if the version is not calibrated.
    interval_coverage: Coverage | None = field(repr=False)
    # None without a group of ten images.
    worst_group: Group | None = field(repr=False)
    groups: tuple[Group, ...] = field(repr=False)
    # Largest errors first, at most 20.
    worst_predictions: tuple[PredictedImage, ...] = field(repr=False)


@dataclass(frozen=True, repr=False)
class EvaluationReport(Value, message="EvaluationReport"):
    """Result of `Client.evaluate`."""

    # `models/{model}/versions/{n}`.
    model_version: str
    # Path of the dataset on the server.
    dataset_path: str
    # ALL, TRAIN, VALIDATION or TEST.
    split: str
    evaluation: Evaluation
    warnings: tuple[str, ...]
    # Images that could not be decoded.
    skipped_images: int
    # Files that are not part of the dataset, by reason.
    rejects: tuple[Rejects, ...] = field(repr=False)
    # Seconds.
    duration: float
    # Plots of `plots=True`, else None.
    predicted_plot_png: bytes | None = field(repr=False)
    residual_plot_png: bytes | None = field(repr=False)
    # Predictions of `predictions=True`, sorted by file name, else empty.
    predictions: tuple[PredictedImage, ...] = field(default=(), repr=False)
