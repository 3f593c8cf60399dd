"""Model versions and aliases."""

from __future__ import annotations

import os

from visage.v1 import model_pb2

from .. import names
from ..errors import FieldViolation, invalid
from ..session import Session, call, paged
from ..steps import Steps
from ..values.message import convert
from ..values.version import AliasEvent, ModelVersion
from .download import download


def models(session: Session, model: str = "age") -> Steps[list[ModelVersion]]:
    """Returns all versions of a model, newest first; the live one has "live" in `aliases`."""
    request = model_pb2.ListModelVersionsRequest(parent=f"models/{model}")
    found = yield from paged(session, session.model_stub.ListModelVersions, request, "versions")
    return [convert(ModelVersion, one) for one in found]


def version(session: Session, version: int | str = "live", model: str = "age") -> Steps[ModelVersion]:
    """Returns one version by number or alias; raises NotFound if it does not exist."""
    request = model_pb2.GetModelVersionRequest(name=names.version(version, model))
    return convert(ModelVersion, (yield from call(session, session.model_stub.GetModelVersion, request)).version)


def promote(session: Session, version: int | str, model: str = "age", alias: str = "live") -> Steps[ModelVersion]:
    """Points an alias to a version, given by number or alias, and returns the version.

    The alias "live" is the default of predictions; setting it moves "previous" to the version that was live. Raises
    NotFound if the version does not exist.
    """
    request = model_pb2.SetAliasRequest(name=names.version(version, model), alias=alias)
    return convert(ModelVersion, (yield from call(session, session.model_stub.SetAlias, request)).version)


def rollback(session: Session, model: str = "age") -> Steps[ModelVersion]:
    """Makes the previous live version live again and returns it.

    Raises NotFound without a previous or live version, and Aborted if another client moves "live" meanwhile.
    """
    current = model_pb2.GetModelVersionRequest(name=names.version("live", model))
    live = (yield from call(session, session.model_stub.GetModelVersion, current)).version.version
    request = model_pb2.SetAliasRequest(name=names.version("previous", model), alias="live", expected_version=live)
    return convert(ModelVersion, (yield from call(session, session.model_stub.SetAlias, request)).version)


def delete_alias(session: Session, alias: str, model: str = "age") -> Steps[None]:
    """Removes an alias. Without "live" predictions need a version."""
    request = model_pb2.DeleteAliasRequest(parent=f"models/{model}", alias=alias)
    yield from call(session, session.model_stub.DeleteAlias, request, is_repeatable=False)


def alias_history(session: Session, model: str = "age") -> Steps[list[AliasEvent]]:
    """Returns the changes of all aliases of a model, newest first."""
    request = model_pb2.ListAliasEventsRequest(parent=f"models/{model}")
    found = yield from paged(session, session.model_stub.ListAliasEvents, request, "events")
    return [convert(AliasEvent, one) for one in found]


def delete_version(session: Session, version: int | str | ModelVersion, model: str = "age") -> Steps[int]:
    """Deletes a version, given by number or name, and returns the freed disk space in bytes.

    Raises FailedPrecondition while an alias points to it, and NotFound if it does not exist.
    """
    name = version.name if isinstance(version, ModelVersion) else names.version(version, model)
    if not name.rsplit("/", 1)[-1].isdigit():
        raise invalid([FieldViolation("version", f"must be a number, since an alias may be moved meanwhile, got {version!r}")])
    request = model_pb2.DeleteModelVersionRequest(name=name)
    return int((yield from call(session, session.model_stub.DeleteModelVersion, request, is_repeatable=False)).freed_bytes)


def register_version(session: Session, checkpoint: str, model: str = "age") -> Steps[ModelVersion]:
    """Creates a version from a checkpoint, `trainings/{id}/checkpoints/{epoch or best}`, and returns it."""
    request = model_pb2.RegisterVersionRequest(checkpoint=checkpoint, parent=f"models/{model}")
    return convert(ModelVersion, (yield from call(session, session.model_stub.RegisterVersion, request, is_repeatable=False)).version)


def register_starter(session: Session, model: str = "age") -> Steps[ModelVersion]:
    """Adds the face model that is built into the server as a version and returns it, or returns the existing one.

    It is not made live: see `promote`.
    """
    request = model_pb2.RegisterVersionRequest(starter=True, parent=f"models/{model}")
    return convert(ModelVersion, (yield from call(session, session.model_stub.RegisterVersion, request)).version)


def export(session: Session, version: int | str, path: str | os.PathLike[str], model: str = "age", file: str = "model.safetensors") -> Steps[None]:
    """Writes a file of a version to `path`, after its SHA-256 was verified.

    Args:
        version: Number or alias.
        path: File to write; replaced if it exists.
        model: Name of the model.
        file: "model.safetensors", with torchvision's parameter names, or "manifest.json", with the description of the
            input. `visage models export` converts to other formats.
    """
    request = model_pb2.DownloadModelFileRequest(name=names.version(version, model), file=file)
    yield from download(session, session.model_stub.DownloadModelFile, request, path)
