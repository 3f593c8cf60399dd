"""Named datasets, uploads and checks of datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from visage.v1 import dataset_pb2, system_pb2

from .. import names
from ..archive import Archive
from ..errors import AlreadyExists, DatasetFailed, FailedPrecondition, FieldViolation, NotFound, invalid
from ..requests import message
from ..session import Session, call, paged
from ..steps import Blocking, Sleep, Steps
from ..upload import Uploader
from ..values.dataset import Dataset, DatasetCheck, Progress, Upload
from ..values.message import convert
from .streaming import report
from .training import dataset_fields

if TYPE_CHECKING:
    from .training import DatasetLike

    OnProgress = Callable[[Progress], None]

FINAL_STATES = ("READY", "FAILED")
# Seconds between two looks at a dataset that is being scanned.
MIN_POLL, MAX_POLL = 0.05, 1.0


def datasets(session: Session) -> Steps[list[Dataset]]:
    """Returns all named datasets, newest first."""
    found = yield from paged(session, session.dataset_stub.ListDatasets, dataset_pb2.ListDatasetsRequest(), "datasets")
    return [convert(Dataset, one) for one in found]


def dataset(session: Session, name: str) -> Steps[Dataset]:
    """Returns a dataset by id or name; raises NotFound if it does not exist."""
    request = dataset_pb2.GetDatasetRequest(name=names.dataset(name))
    return convert(Dataset, (yield from call(session, session.dataset_stub.GetDataset, request)).dataset)


def register_dataset(session: Session, name: str, path: str | os.PathLike[str], *, display_name: str | None = None, age_pattern: str | None = None,
                     columns: Mapping[str, str] | None = None, wait: bool = True, on_progress: OnProgress | None = None) -> Steps[Dataset]:
    """Registers a directory or manifest of the server under a name; the files stay in place.

    Args:
        name: Id of the dataset, 1 to 63 characters of a-z, 0-9 and -, starting with a letter.
        path: Directory or manifest on the server. A relative path that exists here is made absolute if the server runs
            on this machine.
        display_name: Text of at most 256 characters.
        age_pattern: Location of the ages in the paths: `agedb`, `morph`, `fgnet`, `cacd`, `afad`, `directory`, or a
            regular expression with a group `age`. Default: the age at the start of the file name.
        columns: Columns of the manifest: `path`, `age` and `split`.
        wait: Wait until all images are decoded and return the dataset as READY. Otherwise it is returned as SCANNING.
        on_progress: Called with the progress of the scan.

    Raises:
        InvalidArgument: The path does not exist or is outside the data roots.
        AlreadyExists: The id is taken.
        DatasetFailed: The scan found no usable images (with `wait`).
    """
    request = message(dataset_pb2.RegisterDatasetRequest, {
        "dataset_id": identifier(name), "path": names.path(session, path), "display_name": display_name, "age_pattern": age_pattern, "columns": columns})
    created = (yield from call(session, session.dataset_stub.RegisterDataset, request, is_repeatable=False)).dataset
    return (yield from settled(session, convert(Dataset, created), wait, on_progress))


def push_dataset(session: Session, name: str, source: str | os.PathLike[str], *, display_name: str | None = None, age_pattern: str | None = None,
                 columns: Mapping[str, str] | None = None, resume: str | None = None, http_url: str | None = None, wait: bool = True,
                 on_progress: OnProgress | None = None) -> Steps[Dataset]:
    """Uploads a directory or an archive of this machine and creates a dataset from it.

    The upload continues after lost connections. If it fails for `patience` seconds, the error names the upload, with
    which a later call continues.

    Args:
        name: Id of the dataset, 1 to 63 characters of a-z, 0-9 and -, starting with a letter.
        source: Directory of images, or a zip, tar or gzipped tar file. A directory is packed into a temporary file first.
        resume: Id of an interrupted upload of the same source; see `uploads`.
        http_url: URL of the server's HTTP port, if a proxy stands in between.
        display_name, age_pattern, columns, wait: As in `register_dataset`.
        on_progress: Called with the progress in the phases `pack`, `upload`, `unpack` and `scan`; on a thread in the
            first two with the asynchronous client.

    Raises:
        AlreadyExists: The id is taken.
        FailedPrecondition: The server does not accept uploads.
        DatasetFailed: The archive was refused, or contains no usable images (with `wait`).
        Unavailable: The connection was lost for `patience` seconds.
    """
    fields = {"dataset_id": identifier(name), "display_name": display_name, "age_pattern": age_pattern, "columns": columns}
    request = message(dataset_pb2.CreateDatasetRequest, fields)
    yield from check_free(session, names.dataset(request.dataset_id))
    base = http_url or (yield from upload_url(session))
    archive: Archive = yield Blocking(lambda: Archive(source, on_progress))
    try:
        uploader = Uploader(base, session.access, archive, session.patience, on_progress)
        request.upload = yield Blocking(lambda: uploader.send(resume))
    finally:
        archive.close()
    try:
        created = convert(Dataset, (yield from call(session, session.dataset_stub.CreateDataset, request)).dataset)
    except AlreadyExists:
        # A repeated call finds the dataset that the first one created.
        created = yield from dataset(session, request.dataset_id)
        if created.upload != request.upload:
            raise
    return (yield from settled(session, created, wait, on_progress))


def delete_dataset(session: Session, name: str | Dataset) -> Steps[None]:
    """Deletes a dataset; the images of an uploaded one are deleted with it, those of a registered one are kept.

    Raises FailedPrecondition while an active training uses it.
    """
    request = dataset_pb2.DeleteDatasetRequest(name=names.dataset(name))
    yield from call(session, session.dataset_stub.DeleteDataset, request, is_repeatable=False)


def uploads(session: Session) -> Steps[list[Upload]]:
    """Returns the uploads that no dataset has consumed, newest first."""
    response = yield from call(session, session.dataset_stub.ListUploads, dataset_pb2.ListUploadsRequest())
    return [convert(Upload, one) for one in response.uploads]


def delete_upload(session: Session, upload: str | Upload) -> Steps[None]:
    """Deletes an upload and its bytes; raises NotFound if it does not exist."""
    identifier = upload.upload if isinstance(upload, Upload) else upload
    yield from call(session, session.dataset_stub.DeleteUpload, dataset_pb2.DeleteUploadRequest(upload=identifier), is_repeatable=False)


def check_dataset(session: Session, dataset: DatasetLike, *, version: int | str | None = None, model: str = "age", seed: int | None = None,
                  skip_near_duplicates: bool = False, near_distance: int | None = None, max_listed: int | None = None,
                  on_progress: OnProgress | None = None, timeout: float | None = None) -> Steps[DatasetCheck]:
    """Checks a dataset of the server for unusable files, duplicates, leaks between splits and doubtful labels.

    Args:
        dataset: Directory, manifest or named dataset, as for `train`.
        version: Number or alias of a version whose predictions are compared with the labels. Default: none.
        model: Name of the model.
        seed: Seed of the split if the dataset does not define it. Default: 42.
        skip_near_duplicates: Read only headers and bytes: several times faster, but without near-duplicates.
        near_distance: Maximum distance of near-duplicates in bits, 0 to 40. Default: 32.
        max_listed: Maximum number of listed groups of each kind and of listed outliers, 0 to 1,000. Default: 20.
        on_progress: Called with the progress, several times a second at most.
        timeout: Seconds until the report must be complete. Default: no limit.
    """
    request = message(dataset_pb2.CheckDatasetRequest, {
        "dataset": dataset_fields(session, dataset), "seed": seed, "skip_near_duplicates": skip_near_duplicates, "near_distance": near_distance,
        "max_listed": max_listed, "model_version": None if version is None else names.version(version, model)})
    found, _ = yield from report(session, session.dataset_stub.CheckDataset, request, timeout, on_progress)
    return convert(DatasetCheck, found)


def identifier(name: Any) -> Any:
    return name.removeprefix("datasets/") if isinstance(name, str) else name


def check_free(session: Session, name: str) -> Steps[None]:
    """Checks before an upload that the name is free."""
    try:
        yield from dataset(session, name)
    except NotFound:
        return
    raise AlreadyExists(grpc.StatusCode.ALREADY_EXISTS, f"{name} already exists; choose another name, or delete it with delete_dataset", "ALREADY_EXISTS")


def upload_url(session: Session) -> Steps[str]:
    """URL of the HTTP port: the host of the API with the port that the server reports."""
    response = yield from call(session, session.system_stub.GetServerInfo, system_pb2.GetServerInfoRequest())
    if response.http_port == 0 or response.limits.max_upload_bytes == 0:
        raise FailedPrecondition(grpc.StatusCode.FAILED_PRECONDITION, "the server does not accept uploads; register a directory of the server with register_dataset")
    host = session.host
    if not host:
        raise invalid([FieldViolation("http_url", f"must be given, since {session.target} has no host")])
    scheme = "https" if session.access.is_tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{response.http_port}"


def settled(session: Session, found: Dataset, wait: bool, on_progress: OnProgress | None) -> Steps[Dataset]:
    """Waits until the dataset is READY; raises DatasetFailed."""
    delay = MIN_POLL
    while wait and found.state not in FINAL_STATES:
        yield Sleep(delay)
        delay = min(2 * delay, MAX_POLL)
        found = yield from dataset(session, found.name)
        if on_progress is not None and found.progress is not None:
            on_progress(found.progress)
    if found.state == "FAILED":
        raise DatasetFailed(found.name, found.failure)
    return found
