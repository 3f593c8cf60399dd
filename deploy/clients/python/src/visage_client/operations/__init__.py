"""Operations of the clients, without I/O; see `steps`."""

from . import dataset, evaluation, followed, prediction, server, training, version

__all__ = ["dataset", "evaluation", "followed", "prediction", "server", "training", "version"]
