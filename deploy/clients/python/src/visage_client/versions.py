"""Requests for model versions, shared by both clients."""

from __future__ import annotations

from visage.v1 import model_pb2

from .channel import version_name


def listing(model: str) -> model_pb2.ListModelVersionsRequest:
    """Requests the first page of a model's versions."""
    return model_pb2.ListModelVersionsRequest(parent=f"models/{model}", page_size=1000)


def one(version: int | str, model: str) -> model_pb2.GetModelVersionRequest:
    """Requests one version by number or alias."""
    return model_pb2.GetModelVersionRequest(name=version_name(version, model))


def promotion(version: int | str, model: str, alias: str) -> model_pb2.SetAliasRequest:
    """Points an alias to a version."""
    return model_pb2.SetAliasRequest(name=version_name(version, model), alias=alias)


def rollback(model: str, live: int) -> model_pb2.SetAliasRequest:
    """Points `live` to the previous live version, if its current version is still the number `live`."""
    return model_pb2.SetAliasRequest(name=version_name("previous", model), alias="live", expected_version=live)
