"""Datasets from archives of other programs: accepted formats, and refused hostile ones."""

import http.client
import io
import json
import os
import tarfile
import unittest
import zipfile

import grpc

import api
import server
from api import dataset, training

Code = grpc.StatusCode


def tar_of(directory, mode="w"):
    """A tar of the files of a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name in sorted(os.listdir(directory)):
            archive.add(os.path.join(directory, name), arcname="faces/" + name)
    return buffer.getvalue()


def zip_of(entries):
    """A deflated zip of pairs of name and bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


class DatasetsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--max-unpacked-bytes", "64MiB")
        cls.addClassCleanup(cls.server.close)
        cls.faces = server.draw_faces(cls.server.path("faces"), count=60, seed=1, size=64)

    def ask(self, method, path, headers=None, body=None):
        """Sends a request to the HTTP port; returns status, headers and body."""
        connection = http.client.HTTPConnection(self.server.http_address, timeout=api.DEADLINE_SECONDS)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def create_upload(self, content):
        """Creates an upload of this content's length; returns its path and id."""
        status, headers, body = self.ask("POST", "/datasets/uploads", {"Upload-Length": str(len(content))})
        self.assertEqual(status, 201)
        return headers["Location"], json.loads(body)["upload"]

    def patch(self, path, offset, content):
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return self.ask("PATCH", path, headers, content)

    def upload(self, content):
        path, upload = self.create_upload(content)
        self.assertEqual(self.patch(path, 0, content)[0], 204)
        return upload

    def create(self, dataset_id, content):
        """Creates a dataset from an archive and waits until it is READY or FAILED."""
        request = dataset.CreateDatasetRequest(dataset_id=dataset_id, upload=self.upload(content), display_name="Of " + dataset_id)
        self.server.client.datasets.CreateDataset(request)
        return self.done(dataset_id)

    def get(self, dataset_id):
        return self.server.client.datasets.GetDataset(dataset.GetDatasetRequest(name="datasets/" + dataset_id)).dataset

    def done(self, dataset_id):
        ended = (dataset.DATASET_STATE_READY, dataset.DATASET_STATE_FAILED)
        return server.wait_for(lambda: (lambda found: found.state in ended and found)(self.get(dataset_id)), dataset_id + " is done with")

    def delete(self, dataset_id):
        self.server.client.datasets.DeleteDataset(dataset.DeleteDatasetRequest(name="datasets/" + dataset_id))

    def spec(self, name):
        return training.TrainingSpec(dataset=training.DatasetSpec(name=name), max_epochs=1, batch_size=8, input_size=32,
                                     init=training.InitSpec(kind=training.INIT_KIND_RANDOM))

    def test_zips_and_gzipped_tars_of_others_are_read(self):
        files = [(name, os.path.join(self.faces, name)) for name in sorted(os.listdir(self.faces))[:10]]
        entries = []
        for name, path in files:
            with open(path, "rb") as file:
                entries.append(("a/b/" + name, file.read()))
        for dataset_id, content in (("zip", zip_of(entries)), ("tgz", tar_of(self.faces, "w:gz"))):
            found = self.create(dataset_id, content)
            self.assertEqual((found.state, found.failure), (dataset.DATASET_STATE_READY, ""))
            self.assertEqual(found.images, 10 if dataset_id == "zip" else 60)
            self.delete(dataset_id)

    def test_hostile_archives_are_refused_with_the_entry(self):
        def tar_with(**fields):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                info = tarfile.TarInfo("30_first.jpg")
                archive.addfile(info)
                info = tarfile.TarInfo(fields.pop("name", "31_x.jpg"))
                for key, value in fields.items():
                    setattr(info, key, value)
                archive.addfile(info)
            return buffer.getvalue()

        cases = {
            "traversal": (tar_with(name="../../31_x.jpg"), "leads out of the archive"),
            "absolute": (zip_of([("/tmp/31_x.jpg", b"")]), "absolute path"),
            "symlink": (tar_with(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link"),
            "hardlink": (tar_with(type=tarfile.LNKTYPE, linkname="30_first.jpg"), "hard link"),
            "device": (tar_with(type=tarfile.CHRTYPE), "a device"),
            "bomb": (zip_of([("31_x.jpg", bytes(65 << 20))]), "more than 67108864 bytes"),
            "truncated": (tar_of(self.faces)[:-20_000], "damaged or cut off"),
            "garbage": (b"no archive at all", "must be a zip, tar or gzipped tar"),
        }
        for dataset_id, (content, problem) in cases.items():
            with self.subTest(dataset_id):
                found = self.create(dataset_id, content)
                self.assertEqual(found.state, dataset.DATASET_STATE_FAILED)
                self.assertIn(problem, found.failure)
                if dataset_id not in ("garbage", "truncated"):
                    self.assertIn("31_x.jpg", found.failure)
                self.assertFalse(os.path.exists(found.path))
                with self.assertRaises(grpc.RpcError) as caught:
                    self.server.client.start(self.spec("datasets/" + dataset_id))
                refusal = api.Refusal(caught.exception)
                self.assertEqual((refusal.code, refusal.fields), (Code.INVALID_ARGUMENT, ["spec.dataset.name"]))
                self.delete(dataset_id)
        self.assertEqual(os.listdir(os.path.join(self.server.path("data"), "uploads")), [])


if __name__ == "__main__":
    unittest.main()
