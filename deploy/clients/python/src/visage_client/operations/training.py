"""Starting, listing and comparing trainings."""

from __future__ import annotations

import datetime
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from visage.v1 import training_pb2

from .. import keywords, names
from ..errors import FieldViolation, invalid
from ..requests import message
from ..session import Session, call, paged
from ..steps import Steps
from ..values.comparison import Comparison
from ..values.dataset import Dataset
from ..values.message import convert
from ..values.training import Estimate, TrainingInfo

if TYPE_CHECKING:
    from typing import TypeAlias

    from typing_extensions import Unpack

    # A directory or manifest of the server, a named dataset, or fields of DatasetSpec.
    DatasetLike: TypeAlias = str | os.PathLike[str] | Dataset | Mapping[str, Any]


class TrainOptions(TypedDict, total=False):
    """Keyword arguments of `Client.train`: fields of TrainingSpec, whose comments have their ranges and defaults."""

    # IMAGENET1K_V1, RANDOM, STARTER, a version (4, "live" or its name), a file of the server, or
    # fields of InitSpec.
    init: str | int | os.PathLike[str] | Mapping[str, Any]
    # REFERENCE, BEST or FAST: values for all fields that are not given.
    recipe: str
    # Parts that are trained, such as ["layer4", "fc"], or ["ALL"].
    trainable: Sequence[str]
    # 1 to 4,096.
    batch_size: int
    # Pixels, 32 to 1,024.
    input_size: int
    # `learning_rate`, `kind` (ADAM, ADAMW, SGD), `weight_decay`, `groups` and others of
    # OptimizerSpec.
    optimizer: Mapping[str, Any]
    # `kind` (CONSTANT, COSINE, PLATEAU), `warmup_epochs` and others of ScheduleSpec.
    schedule: Mapping[str, Any]
    # `kind` (MSE, SMOOTH_L1, L1) and `beta`.
    loss: Mapping[str, Any]
    # `horizontal_flip`, `min_crop_area`, `erasing` and others of AugmentationSpec.
    augmentation: Mapping[str, Any]
    # `patience` in epochs and `min_delta`.
    early_stopping: Mapping[str, Any]
    # `metric` (VAL_MAE, VAL_RMSE, VAL_LOSS) and `value`.
    target: Mapping[str, Any]
    # `max_restarts`.
    restart_policy: Mapping[str, Any]
    # ALWAYS, IF_BETTER or NEVER.
    promote: str
    # False creates no version.
    create_version: bool
    seed: int
    # VAL_LOSS, VAL_RMSE or VAL_MAE.
    monitor: str
    # Seconds, or a timedelta.
    max_duration: float | datetime.timedelta
    checkpoint_interval: float | datetime.timedelta
    # AUTO, F32 or BF16.
    precision: str
    # 0 to below 1.
    ema_decay: float
    # AUTO, OFF, MEMORY, DISK or DEVICE.
    feature_cache: str
    cache_budget_bytes: int
    # A power of two up to 64.
    shards: int
    # MEAN_AGE or KEEP.
    head_bias: str
    # YEARS or STANDARDISED.
    target_scale: str
    # UPDATE or FROZEN.
    batch_norm: str
    # REDUCE_BATCH or FAIL.
    on_oom: str
    # Id of the training, 1 to 63 of a-z, 0-9 and -; `id` is a synonym.
    training_id: str
    id: str
    display_name: str
    labels: Mapping[str, str]
    # A UUID that identifies the request; repeating it returns the first training.
    request_id: str


# Keywords that are fields of the request; `max_epochs` is the field of the argument `epochs`.
REQUEST_FIELDS = {"training_id", "id", "display_name", "labels", "request_id"}
ALIASES = {"epochs": "max_epochs", "id": "training_id"}


def start(session: Session, dataset: DatasetLike, epochs: int | None, options: TrainOptions) -> Steps[str]:
    """Starts a training and returns its name."""
    request = start_request(session, dataset, epochs, options)
    started = (yield from call(session, session.training_stub.StartTraining, request)).training
    return str(started.name)


def validate(session: Session, dataset: DatasetLike, epochs: int | None = None, **options: Unpack[TrainOptions]) -> Steps[Estimate]:
    """Performs all checks of `train` on the server, including a scan of the dataset, without starting a training.

    Returns the resources that the training needs. Arguments and errors are those of `train`.
    """
    request = start_request(session, dataset, epochs, options)
    request.validate_only = True
    # The scan of a large dataset takes minutes.
    response = yield from call(session, session.training_stub.StartTraining, request, has_deadline=False)
    return convert(Estimate, response.estimate)


def trainings(session: Session, states: Sequence[str] = (), labels: Mapping[str, str] | None = None, limit: int | None = None) -> Steps[list[TrainingInfo]]:
    """Returns the state of all trainings, newest first.

    Args:
        states: Only these states, such as ["RUNNING", "SUCCEEDED"].
        labels: Only trainings that have all of these labels.
        limit: Maximum number of trainings.
    """
    request = message(training_pb2.ListTrainingsRequest, {"states": list(states), "labels": labels})
    found = yield from paged(session, session.training_stub.ListTrainings, request, "trainings", limit)
    return [convert(TrainingInfo, one) for one in found]


def compare(session: Session, *trainings: str) -> Steps[Comparison]:
    """Compares trainings, given by name or id: changed settings, best epochs, test metrics and durations.

    The result prints as a table. `is_comparable` is False if they were validated on different images, so that their
    validation metrics cannot be compared.
    """
    infos = []
    for name in trainings:
        infos.append((yield from get(session, names.training(name))))
    return Comparison(tuple(infos))


def get(session: Session, name: str) -> Steps[TrainingInfo]:
    request = training_pb2.GetTrainingRequest(name=name)
    return convert(TrainingInfo, (yield from call(session, session.training_stub.GetTraining, request)).training)


def start_request(session: Session, dataset: DatasetLike, epochs: int | None, options: TrainOptions) -> training_pb2.StartTrainingRequest:
    """The request of `train`. Its `request_id` makes the call idempotent, so it can be repeated."""
    keywords.check("train", options, {*TrainOptions.__annotations__, "dataset", "epochs"})
    given: dict[str, Any] = dict(options)
    if "id" in given and "training_id" in given:
        raise invalid([FieldViolation("id", "is a synonym of training_id; give one of them")])
    beside = {name: given.pop(name) for name in REQUEST_FIELDS if name in given}
    beside.setdefault("request_id", str(uuid.uuid4()))
    fields = {"dataset": dataset_fields(session, dataset), "epochs": epochs, **given}
    if "init" in fields:
        fields["init"] = initial_weights(session, fields["init"])
    spec = message(training_pb2.TrainingSpec, fields, ALIASES)
    request = message(training_pb2.StartTrainingRequest, beside, ALIASES)
    request.spec.CopyFrom(spec)
    return request


def dataset_fields(session: Session, dataset: DatasetLike) -> Mapping[str, Any]:
    """Fields of DatasetSpec. A text `datasets/{id}` is a named dataset, any other text a path on the server."""
    if isinstance(dataset, Dataset):
        return {"name": dataset.name}
    if isinstance(dataset, str) and names.is_dataset(dataset):
        return {"name": dataset}
    if isinstance(dataset, (str, os.PathLike)):
        return {"path": names.path(session, dataset)}
    if isinstance(dataset, Mapping):
        path = dataset.get("path")
        return {**dataset, "path": names.path(session, path)} if isinstance(path, (str, os.PathLike)) else dataset
    raise invalid([FieldViolation("dataset", f"must be a path, the name of a dataset, a Dataset or a mapping, got {dataset!r}")])


def initial_weights(session: Session, init: Any) -> Any:
    """Fields of InitSpec from a kind, a version or a file."""
    if isinstance(init, int) and not isinstance(init, bool):
        return {"version": names.version(init)}
    if isinstance(init, os.PathLike):
        return {"kind": "PATH", "path": names.path(session, init)}
    if not isinstance(init, str):
        return init
    kinds = [name.removeprefix("INIT_KIND_") for name in training_pb2.InitKind.keys()]
    if init.upper() in kinds:
        return {"kind": init}
    if re.fullmatch(r"models/[^/]+/versions/[^/]+|[0-9]+|[a-z][a-z0-9-]*", init) and not os.path.exists(init):
        return {"version": names.version(init)}
    if "/" in init or "." in init or os.path.exists(init):
        return {"kind": "PATH", "path": names.path(session, init)}
    accepted = "IMAGENET1K_V1, RANDOM, STARTER, a version such as 4, \"live\" or \"models/age/versions/4\", or a .pth or .safetensors file"
    raise invalid([FieldViolation("init", f"must be {accepted}, got {init!r}")])
