"""Visage from Python: start a training, follow its epochs across restarts of the server, predict ages.

`Client` blocks, `AsyncClient` is its twin for asyncio. Messages such as an epoch's figures are those of the API, in `visage.v1`;
the comments of its protos say what each field means.
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
