"""Trainings and uploads of several identities: their owner, the other trainers and an administrator."""

import http.client
import json
import os
import tempfile
import time
import unittest
import uuid

import grpc

import api
import server
from api import dataset, training
from test_auth import Issuer, ask, bearer, new_token
from test_datasets import tar_of

Code = grpc.StatusCode
ROLES = {"ada": "trainer", "eve": "trainer,deployer", "brief": "trainer", "viewer": "viewer", "admin": "admin"}


class OwnersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--auth", "tokens", "--data-roots", ".")
        cls.addClassCleanup(cls.server.close)
        cls.faces = server.draw_faces(cls.server.path("faces"), count=40, seed=1, size=64)
        cls.tokens = {name: new_token(cls.server, name, "--role", roles) for name, roles in ROLES.items()}
        server.wait_for(lambda: ask(cls.server.http_address, "GET", "/endpoints", headers=cls.header("admin"))[0] == 200, "the last token is known", 60)

    @classmethod
    def header(cls, name):
        return {"Authorization": "Bearer " + cls.tokens[name]}

    def call(self, method, message, name):
        return method(message, metadata=bearer(self.tokens[name]))

    def refused(self, method, message, name, code):
        """The error of a call that must fail with this code."""
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(method, message, name)
        refusal = api.Refusal(caught.exception)
        self.assertEqual(refusal.code, code, refusal)
        return refusal


class Uploads(OwnersTest):
    def ask(self, method, path, name, body=None, **headers):
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        return ask(self.server.http_address, method, path, body, {**self.header(name), **headers})

    def patch(self, path, name, offset, body, **headers):
        headers = {"Upload_Offset": str(offset), "Content_Type": "application/offset+octet-stream", **headers}
        return self.ask("PATCH", path, name, body, **headers)

    def create(self, name, length):
        status, body, headers = self.ask("POST", "/datasets/uploads", name, Upload_Length=str(length))
        self.assertEqual(status, 201)
        return headers["location"], json.loads(body)["upload"]

    def listed(self, name):
        return {upload.upload for upload in self.call(self.server.client.datasets.ListUploads, dataset.ListUploadsRequest(), name).uploads}

    def test_upload_exists_for_its_identity_and_administrators_only(self):
        datasets = self.server.client.datasets
        archive = tar_of(self.faces)
        path, upload = self.create("ada", len(archive))
        self.assertEqual(self.patch(path, "ada", 0, archive[:1000])[0], 204)
        unknown = str(uuid.UUID(int=7))
        other = "/datasets/uploads/" + unknown
        # Another trainer cannot distinguish it from one that does not exist; the header is not an identity.
        for claimed in ({}, {"Client_Id": "identity ada"}):
            self.assertEqual(self.ask("HEAD", path, "eve", **claimed)[0], 404)
            for response, expected in ((self.patch(path, "eve", 1000, b"x", **claimed), self.patch(other, "eve", 1000, b"x")),
                                       (self.ask("DELETE", path, "eve", **claimed), self.ask("DELETE", other, "eve"))):
                self.assertEqual(response[0], 404)
                self.assertEqual(response[:2], (expected[0], expected[1].replace(unknown.encode(), upload.encode())))
        for method, message in ((datasets.DeleteUpload, dataset.DeleteUploadRequest), (datasets.CreateDataset, dataset.CreateDatasetRequest)):
            fields = {"dataset_id": "stolen"} if message is dataset.CreateDatasetRequest else {}
            refusal = self.refused(method, message(upload=upload, **fields), "eve", Code.NOT_FOUND)
            expected = self.refused(method, message(upload=unknown, **fields), "eve", Code.NOT_FOUND)
            self.assertEqual((refusal.reason, refusal.message), ("NO_UPLOAD", expected.message.replace(unknown, upload)))
        for name, expected in (("ada", True), ("admin", True), ("eve", False)):
            self.assertEqual(upload in self.listed(name), expected, name)
        # Nothing changed, and an administrator may continue it.
        self.assertEqual(self.ask("HEAD", path, "ada")[2]["upload-offset"], "1000")
        self.assertEqual(self.patch(path, "admin", 1000, archive[1000:])[0], 204)
        created = self.call(datasets.CreateDataset, dataset.CreateDatasetRequest(dataset_id="ada", upload=upload), "ada").dataset
        self.assertEqual(created.upload, upload)

    def test_owner_and_administrator_delete_uploads(self):
        datasets = self.server.client.datasets
        for name, by in (("ada", "ada"), ("ada", "admin")):
            path, upload = self.create(name, 10)
            self.call(datasets.DeleteUpload, dataset.DeleteUploadRequest(upload=upload), by)
            self.assertEqual(self.ask("HEAD", path, name)[0], 404)
            path, _ = self.create(name, 10)
            self.assertEqual(self.ask("DELETE", path, by)[0], 204)

    def test_upload_that_a_revoked_token_is_writing_can_be_continued(self):
        path, _ = self.create("brief", 10)
        connection = http.client.HTTPConnection(self.server.http_address, timeout=api.DEADLINE_SECONDS)
        self.addCleanup(connection.close)
        connection.putrequest("PATCH", path)
        for name, value in {**self.header("brief"), "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", "Content-Length": "10"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"0123")
        server.wait_for(lambda: self.ask("HEAD", path, "admin")[2]["upload-offset"] == "4", "the first bytes are written")
        self.assertEqual(self.patch(path, "admin", 4, b"4")[0], 423)
        server.run("token", "revoke", "brief", "--data-dir", self.server.path("data"))
        self.assertEqual(connection.getresponse().status, 401)
        # Released as soon as the received bytes are on disk, and not after a minute without bytes.
        server.wait_for(lambda: self.patch(path, "admin", 4, b"456789")[0] == 204, "the upload is released", 30)


class Trainings(OwnersTest):
    def setUp(self):
        self.client = self.server.client.trainings

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        message = dataset.RegisterDatasetRequest(dataset_id="faces", path=cls.faces)
        datasets, metadata = cls.server.client.datasets, bearer(cls.tokens["admin"])
        datasets.RegisterDataset(message, metadata=metadata)
        found = dataset.GetDatasetRequest(name="datasets/faces")
        server.wait_for(lambda: datasets.GetDataset(found, metadata=metadata).dataset.state == dataset.DATASET_STATE_READY, "the dataset is scanned")

    def request(self, **fields):
        spec = training.TrainingSpec(dataset=training.DatasetSpec(name="datasets/faces"), init=training.InitSpec(kind=training.INIT_KIND_RANDOM),
                                     max_epochs=10_000, batch_size=8, input_size=32)
        return training.StartTrainingRequest(spec=spec, **fields)

    def start(self, name, **fields):
        return self.call(self.client.StartTraining, self.request(**fields), name).training

    def get(self, name, by):
        return self.call(self.client.GetTraining, training.GetTrainingRequest(name=name), by).training

    def cancel(self, name, by):
        self.call(self.client.CancelTraining, training.CancelTrainingRequest(name=name, force=True), by)
        server.wait_for(lambda: self.get(name, by).state == training.TRAINING_STATE_CANCELLED, name + " is cancelled")

    def test_owner_and_administrators_change_a_training(self):
        started = self.start("ada")
        self.assertEqual(started.owner, "ada")
        # Everybody who may view trainings sees it.
        self.assertEqual(self.get(started.name, "viewer").owner, "ada")
        changes = ((self.client.PauseTraining, training.PauseTrainingRequest), (self.client.ResumeTraining, training.ResumeTrainingRequest),
                   (self.client.StopTraining, training.StopTrainingRequest), (self.client.CancelTraining, training.CancelTrainingRequest))
        calls = [(method, message(name=started.name)) for method, message in changes]
        calls.append((self.client.UpdateTraining, training.UpdateTrainingRequest(name=started.name, max_epochs=1)))
        for method, message in calls:
            refusal = self.refused(method, message, "eve", Code.PERMISSION_DENIED)
            self.assertEqual(refusal.reason, "NOT_OWNER")
            self.assertIn("only its owner, ada, and clients with the role admin may change " + started.name, refusal.message)
        kept = self.get(started.name, "eve")
        self.assertIn(kept.state, (training.TRAINING_STATE_QUEUED, training.TRAINING_STATE_PREPARING, training.TRAINING_STATE_RUNNING))
        self.assertEqual(kept.resolved_spec.max_epochs, 10_000)
        # An administrator changes it, its owner too.
        changed = self.call(self.client.UpdateTraining, training.UpdateTrainingRequest(name=started.name, max_epochs=9_000), "admin").training
        self.assertEqual((changed.resolved_spec.max_epochs, changed.owner), (9_000, "ada"))
        self.call(self.client.PauseTraining, training.PauseTrainingRequest(name=started.name), "ada")
        self.cancel(started.name, "admin")

    def test_request_and_training_ids_of_others_are_not_reused(self):
        repeated = str(uuid.uuid4())
        first = self.start("ada", request_id=repeated)
        self.assertEqual(self.start("ada", request_id=repeated).name, first.name)
        other = self.start("eve", request_id=repeated)
        self.assertNotEqual(other.name, first.name)
        self.assertEqual(other.owner, "eve")
        # Another spec under the same id is refused for its owner only.
        third = self.start("admin", request_id=repeated, display_name="of the administrator")
        self.assertEqual(third.owner, "admin")
        self.refused(self.client.StartTraining, self.request(request_id=repeated, display_name="changed"), "ada", Code.INVALID_ARGUMENT)

        # A training that never started gives its id free, but to its owner only.
        waiting = self.start("ada", training_id="mine")
        self.assertEqual(waiting.state, training.TRAINING_STATE_QUEUED)
        self.cancel(waiting.name, "ada")
        for options in ({}, {"validate_only": True}):
            refusal = self.refused(self.client.StartTraining, self.request(training_id="mine", **options), "eve", Code.ALREADY_EXISTS)
            self.assertIn("choose another id", refusal.message)
        again = self.start("ada", training_id="mine")
        for found, by in ((again, "ada"), (first, "ada"), (other, "eve"), (third, "admin")):
            self.cancel(found.name, by)


class Issued(unittest.TestCase):
    def test_subject_and_not_the_name_is_the_owner(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        issuer = Issuer(directory.name)
        issuer.add("ES256", "key")
        keys = os.path.join(directory.name, "keys.json")
        issuer.write(keys)
        running = server.Server("--auth", "tokens,oidc", "--oidc-issuer", "https://login.example.org", "--oidc-audience", "visage", "--oidc-jwks", keys)
        self.addCleanup(running.close)
        claims = {"iss": "https://login.example.org", "aud": "visage", "preferred_username": "ada", "exp": int(time.time()) + 3600, "roles": ["trainer"]}

        def status(token, path, method="HEAD"):
            return ask(running.http_address, method, path, headers={"Authorization": "Bearer " + token, "Upload-Length": "4"})

        first, second = (issuer.sign("key", {**claims, "sub": subject}) for subject in ("1234", "5678"))
        token = new_token(running, "ada", "--role", "trainer")
        for credential in (first, token):
            server.wait_for(lambda: status(credential, "/v2", "GET")[0] == 200, "the credential is known", 60)
        path = status(first, "/datasets/uploads", "POST")[2]["location"]
        self.assertEqual([status(credential, path)[0] for credential in (first, second, token)], [200, 404, 404])
        path = status(token, "/datasets/uploads", "POST")[2]["location"]
        self.assertEqual([status(credential, path)[0] for credential in (first, second, token)], [404, 404, 200])


class WithoutAuthentication(unittest.TestCase):
    def test_trainings_have_no_owner_and_uploads_are_shared(self):
        running = server.Server()
        self.addCleanup(running.close)
        address = running.http_address
        status, _, headers = ask(address, "POST", "/datasets/uploads", headers={"Upload-Length": "4", "Client-Id": "ada"})
        self.assertEqual(status, 201)
        head = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", "Client-Id": "eve"}
        self.assertEqual(ask(address, "PATCH", headers["location"], b"0123", head)[0], 204)
        self.assertEqual(len(running.client.datasets.ListUploads(dataset.ListUploadsRequest()).uploads), 1)
        faces = server.draw_faces(running.path("faces"), count=20, seed=1, size=64)
        spec = training.TrainingSpec(dataset=training.DatasetSpec(path=faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM), input_size=32)
        started = running.client.start(spec)
        self.assertEqual(started.owner, "")
        running.client.trainings.CancelTraining(training.CancelTrainingRequest(name=started.name, force=True))


if __name__ == "__main__":
    unittest.main()
