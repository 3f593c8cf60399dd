"""Evaluation of versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from visage.v1 import model_pb2

from .. import names
from ..requests import message
from ..session import Session, call
from ..steps import Steps
from ..values.dataset import Progress
from ..values.evaluation import Evaluation, EvaluationReport, PredictedImage
from ..values.message import convert
from .streaming import report
from .training import dataset_fields

if TYPE_CHECKING:
    from .training import DatasetLike


def evaluate(session: Session, dataset: DatasetLike, version: int | str = "live", *, model: str = "age",
             split: Literal["ALL", "TRAIN", "VALIDATION", "TEST"] = "ALL", interval_level: float | None = None, plots: bool = False,
             predictions: bool = False, on_progress: Callable[[Progress], None] | None = None, timeout: float | None = None) -> Steps[EvaluationReport]:
    """Evaluates a version on a dataset of the server.

    Args:
        dataset: Directory, manifest or named dataset, as for `train`.
        version: Number or alias.
        model: Name of the model.
        split: Images to evaluate. Without splits in the dataset they are made as in the training of the version.
        interval_level: Confidence of the intervals, above 0 and below 1. Default: 0.9.
        plots: Return plots of the predicted ages and of the residuals, as PNG.
        predictions: Return the prediction of every image.
        on_progress: Called with the progress, several times a second at most.
        timeout: Seconds until the report must be complete. Default: no limit.

    Raises:
        InvalidArgument: The dataset is unusable, or the split has no images.
        NotFound: The version does not exist.
        FailedPrecondition: No version is live.
        ResourceExhausted: Four evaluations are running.
    """
    request = message(model_pb2.EvaluateModelVersionRequest, {
        "name": names.version(version, model), "dataset": dataset_fields(session, dataset), "split": split, "interval_level": interval_level,
        "include_plots": plots, "include_predictions": predictions})
    found, pages = yield from report(session, session.model_stub.EvaluateModelVersion, request, timeout, on_progress)
    predicted = tuple(convert(PredictedImage, one) for page in pages for one in page.predictions.predictions)
    return convert(EvaluationReport, found, predictions=predicted)


def evaluation(session: Session, version: int | str = "live", model: str = "age") -> Steps[Evaluation]:
    """Returns the evaluation of a version on the test images of its training.

    Raises NotFound if the training had no test images, as for the starter.
    """
    request = model_pb2.GetEvaluationRequest(name=names.version(version, model))
    return convert(Evaluation, (yield from call(session, session.model_stub.GetEvaluation, request)).evaluation)
