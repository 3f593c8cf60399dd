"""Python client of Visage: starts trainings, follows their epochs across restarts of the server, predicts ages.

`Client` blocks; `AsyncClient` has the same methods for asyncio. Messages such as
`visage.v1.training_pb2.EpochMetrics` are those of the API; the comments of its protos define their fields.
"""

from .aio import AsyncClient, AsyncTraining
from .client import Client, Training
from .errors import (Aborted, AlreadyExists, DeadlineExceeded, FailedPrecondition, FieldViolation, InvalidArgument, NotFound,
                     ResourceExhausted, TrainingFailed, Unavailable, VisageError)
from .following import Result
from .images import Interval, Prediction

__all__ = ["Aborted", "AlreadyExists", "AsyncClient", "AsyncTraining", "Client", "DeadlineExceeded", "FailedPrecondition", "FieldViolation",
           "Interval", "InvalidArgument", "NotFound", "Prediction", "ResourceExhausted", "Result", "Training", "TrainingFailed",
           "Unavailable", "VisageError"]
