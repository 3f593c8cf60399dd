"""Python client of Visage: trains, follows epochs across restarts of the server, predicts ages, manages versions and datasets.

`Client` blocks; `AsyncClient` has the same methods for asyncio. The objects that they return are immutable and
documented in `values`; events of a training and specs are messages of the API, whose protos define their fields.
"""

try:
    from visage.v1 import training_pb2 as _training_pb2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("visage", "visage.v1", "visage.v1.training_pb2"):
        raise
    raise ModuleNotFoundError("the modules of the API (visage.v1) are missing, which are generated when the package is installed: "
                              "run `pip install ./deploy/clients/python` at the top of a checkout, and import the installed package",
                              name=error.name) from None

from .aio import AsyncClient, AsyncTraining
from .client import Client, Training
from .errors import (Aborted, AlreadyExists, DatasetFailed, DeadlineExceeded, FailedPrecondition, FieldViolation, InvalidArgument, MissingDependency,
                     NotFound, PermissionDenied, ResourceExhausted, TrainingFailed, Unauthenticated, Unavailable, UnknownKeyword, VisageError)
from .images import EncodedImage
from .operations.prediction import PredictOptions
from .operations.training import TrainOptions
from .values.comparison import Comparison
from .values.dataset import Dataset, DatasetCheck, Progress, Upload
from .values.evaluation import Evaluation, EvaluationReport
from .values.prediction import Box, Explanation, Face, Interval, Prediction
from .values.server import ServerInfo
from .values.training import Checkpoint, Epoch, Estimate, Promotion, Result, TrainingInfo
from .values.version import AliasEvent, ModelVersion

__all__ = ["Aborted", "AliasEvent", "AlreadyExists", "AsyncClient", "AsyncTraining", "Box", "Checkpoint", "Client", "Comparison", "Dataset", "DatasetCheck",
           "DatasetFailed", "DeadlineExceeded", "EncodedImage", "Epoch", "Estimate", "Evaluation", "EvaluationReport", "Explanation", "Face",
           "FailedPrecondition", "FieldViolation", "Interval", "InvalidArgument", "MissingDependency", "ModelVersion", "NotFound", "PermissionDenied", "PredictOptions",
           "Prediction", "Progress", "Promotion", "ResourceExhausted", "Result", "ServerInfo", "TrainOptions", "Training", "TrainingFailed", "TrainingInfo",
           "Unauthenticated", "Unavailable", "UnknownKeyword", "Upload", "VisageError"]
