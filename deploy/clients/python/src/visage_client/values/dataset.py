"""Datasets, uploads and their checks."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from .message import Value


@dataclass(frozen=True, repr=False)
class Progress(Value, message="CheckProgress"):
    """Progress of a scan, a check, an evaluation or an upload."""

    # Such as `scan`, `compare` or `predict`; `pack` and `upload` count bytes.
    phase: str
    done: int
    # 0 while unknown.
    total: int


@dataclass(frozen=True, repr=False)
class Rejects(Value, message="RejectReport"):
    """Unusable files of one reason, such as `no_age` or `unreadable`."""

    reason: str
    count: int
    # At most five file names.
    examples: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Split(Value, message="SplitReport"):
    """The `train`, `validation` or `test` images of a dataset; ages in years."""

    split: str
    images: int
    age_mean: float
    age_sd: float
    age_min: float
    age_max: float


@dataclass(frozen=True, repr=False)
class DatasetReport(Value, message="DatasetReport"):
    """Summary of a scanned dataset."""

    splits: tuple[Split, ...]
    rejects: tuple[Rejects, ...]
    warnings: tuple[str, ...]
    # Groups of byte-identical images, and those with members in several splits.
    duplicate_groups: int
    straddling_groups: int
    # SHA-256 over the dataset and over its validation images. Trainings with equal `val_digest` can
    # be compared by validation metrics.
    digest: str = field(repr=False)
    val_digest: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class AgeBand(Value, message="AgeBand"):
    """Number of images per split in the ten years from `from_age`."""

    from_age: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True, repr=False)
class Dataset(Value, message="Dataset"):
    """A named dataset of the server."""

    # `datasets/{id}`.
    name: str
    display_name: str
    # UNPACKING, SCANNING, READY or FAILED.
    state: str
    # REGISTERED or UPLOADED.
    kind: str
    # Directory or manifest on the server.
    path: str
    # Usable images and their size in bytes; 0 before READY.
    images: int
    bytes: int
    # Cause of FAILED.
    failure: str
    # Phase of unpacking or scanning.
    progress: Progress | None
    # Splits, rejects and warnings; None before READY.
    report: DatasetReport | None = field(repr=False)
    ages: tuple[AgeBand, ...] = field(repr=False)
    # Id of the upload that the dataset was created from.
    upload: str = field(repr=False)
    create_time: datetime.datetime


@dataclass(frozen=True, repr=False)
class Upload(Value, message="Upload"):
    """An archive that no dataset has consumed yet."""

    # Id, for `Client.push_dataset(resume=)` and `Client.delete_upload`.
    upload: str
    # Announced and received bytes.
    size_bytes: int
    received_bytes: int
    update_time: datetime.datetime
    # Time when it is deleted unless it receives more bytes.
    expire_time: datetime.datetime


@dataclass(frozen=True, repr=False)
class DuplicateImage(Value, message="DuplicateImage"):
    """A member of a group of duplicates. `distance` is that to the first image of the group in bits."""

    file: str
    split: str
    age: float
    distance: int
    mirrored: bool


@dataclass(frozen=True, repr=False)
class DuplicateGroup(Value, message="DuplicateGroup"):
    """Images that look the same, with ages or splits that may differ."""

    straddles: bool
    conflicts: bool
    size: int
    # At most 20.
    images: tuple[DuplicateImage, ...]


@dataclass(frozen=True, repr=False)
class Duplicates(Value, message="DuplicateReport"):
    """Duplicate images of a dataset."""

    groups: int
    images: int
    # Groups with members in several splits, and groups with different ages.
    straddling_groups: int
    conflicting_groups: int
    # First groups, at most `max_listed` of the check.
    listed: tuple[DuplicateGroup, ...] = field(repr=False)


@dataclass(frozen=True, repr=False)
class LabelOutlier(Value, message="LabelOutlier"):
    """An image whose labelled age lies outside the interval of its prediction; years."""

    file: str
    split: str
    age: float
    predicted: float
    lower: float
    upper: float
    # Absolute error divided by half the width of the interval.
    ratio: float


@dataclass(frozen=True, repr=False)
class LabelOutliers(Value, message="LabelOutliers"):
    """Labels that contradict the predictions of a version."""

    model_version: str
    # Share of true ages that the intervals should cover, 0 to 1.
    level: float
    images: int
    outside: int
    # In descending order of `ratio`, at most `max_listed` of the check.
    listed: tuple[LabelOutlier, ...] = field(repr=False)


@dataclass(frozen=True, repr=False)
class DatasetCheck(Value, message="DatasetCheck"):
    """Result of `Client.check_dataset`."""

    # Path on the server.
    dataset_path: str
    dataset: DatasetReport
    # Files that are not images.
    ignored_files: int
    # Byte-identical images.
    exact: Duplicates
    # Images that look the same; None with `skip_near_duplicates`.
    near: Duplicates | None
    # None without `version`.
    outliers: LabelOutliers | None
    ages: tuple[AgeBand, ...] = field(repr=False)
    # Seconds.
    duration: float
