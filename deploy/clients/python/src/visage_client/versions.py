"""Requests about versions of a model, the same for both clients."""

from __future__ import annotations

from visage.v1 import model_pb2

from .channel import version_name


def listing(model: str) -> model_pb2.ListModelVersionsRequest:
    """The first page of a model's versions."""
    return model_pb2.ListModelVersionsRequest(parent=f"models/{model}", page_size=1000)


def one(version: int | str, model: str) -> model_pb2.GetModelVersionRequest:
    """One version, by number or alias."""
    return model_pb2.GetModelVersionRequest(name=version_name(version, model))


def promotion(version: int | str, model: str, alias: str) -> model_pb2.SetAliasRequest:
    """Makes a version the one that an alias means."""
    return model_pb2.SetAliasRequest(name=version_name(version, model), alias=alias)


def rollback(model: str, live: int) -> model_pb2.SetAliasRequest:
    """Makes the version live that was so before, unless another one than `live` is by now."""
    return model_pb2.SetAliasRequest(name=version_name("previous", model), alias="live", expected_version=live)
