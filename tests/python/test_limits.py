"""Limits that keep one client from using up the disk, the memory or the places of a server."""

import concurrent.futures
import json
import os
import socket
import struct
import unittest
import zlib

import grpc

import api
import server
from test_network import MIB, Network, archive, frame, png


def noise(side, seed):
    """A PNG of random pixels, which no format makes smaller."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    state, rows = seed, bytearray()
    for _ in range(side):
        rows.append(0)
        for _ in range(3 * side):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            rows.append(state >> 16 & 255)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows), 0)) + chunk(b"IEND", b"")


def code_and_text(call):
    """The status of a call: OK, or its code with its message."""
    try:
        call()
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details()


class Rates(Network):
    def test_calls_of_one_client_are_limited_by_second(self):
        running = server.Server("--threads", "1", "--max-calls-per-second", "5")
        self.addCleanup(running.close)
        found = [self.ask(running.http_address, "GET", "/v2") for _ in range(60)]
        refused = [(body, headers) for status, body, headers in found if status == 429]
        self.assertGreater(len(refused), 10)
        self.assertIn(b"max_calls_per_second", refused[0][0])
        for _ in range(20):
            self.assertEqual(self.ask(running.http_address, "GET", "/livez")[0], 200)
        codes = {code_and_text(lambda: running.client.system.GetServerInfo(api.system.GetServerInfoRequest()))[0] for _ in range(60)}
        self.assertIn("RESOURCE_EXHAUSTED", codes)


class ContentTypes(Network):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", "--threads", "1")
        cls.addClassCleanup(cls.server.close)

    def test_pages_must_name_a_type_of_the_protocol(self):
        address = self.server.http_address
        own = {"Origin": "http://" + address}
        form = "application/x-www-form-urlencoded"
        for headers, expected in (
            ({"Content-Type": "application/json"}, 200),
            ({}, 200),
            ({"Content-Type": form}, 200),
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
            ({**own, "Content-Type": "application/json"}, 200),
            ({**own, "Content-Type": form}, 415),
            ({**own, "Content-Type": "text/plain"}, 415),
            (own, 415),
            ({"Sec-Fetch-Site": "same-origin", "Content-Type": form}, 415),
            ({"Sec-Fetch-Site": "none"}, 415),
        ):
            status, body, _ = self.ask(address, "POST", "/v2/repository/index", b"{}", headers)
            self.assertEqual(status, expected, (headers, body))

    def test_list_elements_of_other_messages_are_counted_too(self):
        elements = 1_000_000
        inner = b"\x42\x00" * elements
        contents = b"\x2a" + varint(len(inner)) + inner
        before = self.memory(self.server, "VmHWM")
        cases = {
            "outputs": ("/inference.GRPCInferenceService/ModelInfer", b"\x32\x00" * elements),
            "raw contents": ("/inference.GRPCInferenceService/ModelInfer", b"\x3a\x00" * elements),
            "elements of one input": ("/inference.GRPCInferenceService/ModelInfer", b"\x2a" + varint(len(contents)) + contents),
            "labels": ("/visage.v1.TrainingService/StartTraining", b"\x32\x00" * elements),
            "images": ("/visage.v1.PredictionService/Predict", b"\x0a\x00" * elements),
        }
        with grpc.insecure_channel(self.server.grpc_address) as channel:
            for name, (path, message) in cases.items():
                for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                    call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
                    code, _ = code_and_text(lambda: call(message, timeout=api.DEADLINE_SECONDS, compression=compression))
                    self.assertNotEqual(code, "OK", name)
        # As JSON, where an element takes 3 bytes.
        body = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [elements], "data": [""] * elements}]}).encode()
        status, _, _ = self.ask(self.server.http_address, "POST", "/v2/models/age/infer", body, {"Content-Type": "application/json"})
        self.assertEqual(status // 100, 4)
        self.assertLess(self.memory(self.server, "VmHWM") - before, 128 * MIB)

    def test_a_model_has_at_most_64_aliases(self):
        def point(alias):
            request = api.model.SetAliasRequest(name="models/age/versions/1", alias=alias)
            return code_and_text(lambda: self.server.client.models.SetAlias(request))

        found = [point("name-{}".format(number)) for number in range(70)]
        self.assertEqual([code for code, _ in found], ["OK"] * 63 + ["RESOURCE_EXHAUSTED"] * 7)
        self.assertIn("64 aliases", found[-1][1])
        # An existing alias can still be moved.
        self.assertEqual(point("name-1"), ("OK", ""))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


class Paths(Network):
    """Errors do not tell what exists outside of the roots."""

    def setUp(self):
        self.outside = server.tempfile.mkdtemp(prefix="visage-outside-")
        self.addCleanup(server.shutil.rmtree, self.outside)
        self.root = os.path.join(self.outside, "root")
        os.mkdir(self.root)
        secret = os.path.join(self.outside, "secret")
        os.mkdir(secret)
        with open(os.path.join(secret, "list.csv"), "w", encoding="ascii") as file:
            file.write("salary,name\n1,x\n")
        os.symlink(os.path.join(secret, "list.csv"), os.path.join(self.root, "present.csv"))
        os.symlink(os.path.join(secret, "absent.csv"), os.path.join(self.root, "absent.csv"))
        os.mkdir(os.path.join(self.outside, "closed"), 0o000)

    def start(self, *options):
        self.server = server.Server("--threads", "1", *options)
        self.addCleanup(self.server.close)

    def refusals(self, path):
        client = self.server.client
        spec = {"dataset": {"path": path}}
        calls = {
            "RegisterDataset": lambda: client.datasets.RegisterDataset(api.dataset.RegisterDatasetRequest(dataset_id="x", path=path)),
            "CheckDataset": lambda: list(client.datasets.CheckDataset(api.dataset.CheckDatasetRequest(dataset=api.training.DatasetSpec(path=path)))),
            "StartTraining": lambda: client.trainings.StartTraining(api.training.StartTrainingRequest(spec=api.training.TrainingSpec(**spec))),
            "init": lambda: client.trainings.StartTraining(api.training.StartTrainingRequest(
                spec=api.training.TrainingSpec(init=api.training.InitSpec(path=path), **spec))),
        }
        return {name: tuple(part.replace(path, "PATH") for part in code_and_text(call)) for name, call in calls.items()}

    def test_existing_and_missing_files_are_refused_alike(self):
        self.start("--data-roots", self.root, "--weights-roots", self.root)
        data = self.server.path("data")
        with open(os.path.join(data, "uploads", "some.data"), "wb") as file:
            file.write(b"x")
        paths = [
            os.path.join(self.outside, "secret", "list.csv"),
            os.path.join(self.outside, "secret", "absent.csv"),
            os.path.join(self.outside, "secret"),
            os.path.join(self.outside, "closed", "x"),
            os.path.join(self.root, "present.csv"),
            os.path.join(self.root, "absent.csv"),
            os.path.join(self.root, "..", "secret", "list.csv"),
            os.path.join(self.root, "..", "secret", "absent.csv"),
            "../secret/list.csv",
            "../secret/absent.csv",
            "/etc/passwd",
            "/proc/self/environ",
            "/dev/zero",
            os.path.join(data, "visage.db"),
            os.path.join(data, "uploads", "some.data"),
            os.path.join(data, "uploads", "absent.data"),
        ]
        expected = self.refusals(paths[0])
        for code, text in expected.values():
            self.assertEqual(code, "INVALID_ARGUMENT", text)
            self.assertIn("outside the allowed directories", text)
            self.assertNotIn("salary", text)
        for path in paths[1:]:
            self.assertEqual(self.refusals(path), expected, path)

    def test_default_roots_do_not_contain_the_system_or_the_data_directory(self):
        self.start()
        info = self.server.client.system.GetServerInfo(api.system.GetServerInfoRequest())
        self.assertIn(self.server.directory, info.data_roots)
        self.assertNotIn("/", info.data_roots)
        for path in ("/etc", "/usr/share", self.server.path("data"), self.server.path("data/visage.db")):
            for code, text in self.refusals(path).values():
                self.assertEqual(code, "INVALID_ARGUMENT", text)
                self.assertIn("outside the allowed directories", text, path)
        faces = server.draw_faces(self.server.path("faces"), 4, 1)
        self.server.client.datasets.RegisterDataset(api.dataset.RegisterDatasetRequest(dataset_id="faces", path=faces))


class UploadPlaces(Network):
    def test_one_client_does_not_take_all_places(self):
        running = server.Server("--threads", "1")
        self.addCleanup(running.close)
        started = [self.begin(running, "127.0.0.1") for _ in range(16)]
        self.assertEqual([status for status, _ in started], [201] * 16)
        for _, body in started:
            path = "/datasets/uploads/" + json.loads(body)["upload"]
            status, body, _ = self.ask(running.http_address, "PATCH", path, b"x", {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"})
            self.assertEqual(status, 204, body)
        status, body = self.begin(running, "127.0.0.1")
        self.assertEqual(status, 429, body)
        self.assertIn(b"16 uploads of this client", body)
        self.assertEqual(self.begin(running, "127.0.0.2")[0], 201)

    def begin(self, running, source):
        host, port = running.http_address.rsplit(":", 1)
        with socket.create_connection((host, port), api.DEADLINE_SECONDS, (source, 0)) as connection:
            connection.sendall("POST /datasets/uploads HTTP/1.1\r\nHost: {}\r\nUpload-Length: 1000\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                               .format(running.http_address).encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        head, body = answer.split(b"\r\n\r\n", 1)
        return int(head.split()[1]), body


class Responses(Network):
    def test_responses_that_nobody_reads_are_bounded(self):
        running = server.Server("--starter", "--threads", "1", "--max-inflight-bytes", "24MiB")
        self.addCleanup(running.close)
        images = [noise(256, number) for number in range(4)]
        request = api.prediction.PredictRequest(images=images * 12, annotate=True)
        answer = running.client.predictions.Predict(request)
        size = answer.ByteSize()
        self.assertGreater(size, 8 * MIB)
        # The same call, of which the response is not read.
        body = frame(request.SerializeToString())
        host, port = running.grpc_address.rsplit(":", 1)
        stuck = socket.socket()
        self.addCleanup(stuck.close)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.settimeout(api.DEADLINE_SECONDS)
        stuck.connect((host, int(port)))
        stuck.sendall("POST /visage.v1.PredictionService/Predict HTTP/1.1\r\nHost: {}\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n"
                      .format(running.grpc_address, len(body)).encode() + body)
        self.assertEqual(stuck.recv(12), b"HTTP/1.1 200")

        def probe():
            return code_and_text(lambda: running.client.predictions.Predict(api.prediction.PredictRequest(images=images * 12)))

        code, text = server.wait_for(lambda: next((found for found in [probe()] if found[0] != "OK"), None), "the memory is in use")
        self.assertEqual(code, "RESOURCE_EXHAUSTED", text)
        self.assertIn("max_inflight_bytes", text)
        stuck.close()
        server.wait_for(lambda: probe()[0] == "OK", "the memory is free again")

    def test_a_response_beyond_the_memory_is_refused(self):
        running = server.Server("--starter", "--threads", "1", "--max-inflight-bytes", "16MiB")
        self.addCleanup(running.close)
        request = api.prediction.PredictRequest(images=[noise(256, number) for number in range(4)] * 12, annotate=True)
        code, text = code_and_text(lambda: running.client.predictions.Predict(request))
        self.assertEqual(code, "RESOURCE_EXHAUSTED", text)
        self.assertIn("max_inflight_bytes", text)
        request.annotate = False
        self.assertEqual(code_and_text(lambda: running.client.predictions.Predict(request))[0], "OK")


class EventStreams(Network):
    def test_streams_are_limited(self):
        running = server.Server("--threads", "1", "--max-event-streams", "6", "--max-event-streams-per-client", "4")
        self.addCleanup(running.close)
        request = api.training.StreamEpochMetricsRequest(name="trainings/-", heartbeat_interval={"nanos": 100_000_000})
        streams = [running.client.trainings.StreamEpochMetrics(request) for _ in range(4)]
        for stream in streams:
            self.assertTrue(next(stream).event.HasField("heartbeat"))
        code, text = code_and_text(lambda: next(running.client.trainings.StreamEpochMetrics(request)))
        self.assertEqual(code, "RESOURCE_EXHAUSTED")
        self.assertIn("max_event_streams_per_client", text)
        streams.pop().cancel()

        def opens():
            stream = running.client.trainings.StreamEpochMetrics(request)
            streams.append(stream)
            return code_and_text(lambda: next(stream))[0] == "OK"

        server.wait_for(opens, "the place of an ended stream is free")
        for stream in streams:
            stream.cancel()

    def test_many_streams_of_a_training_get_all_events(self):
        running = server.Server("--threads", "1", "--max-event-streams-per-client", "300")
        self.addCleanup(running.close)
        faces = server.draw_faces(running.path("faces"), 40, 1, size=64)
        spec = api.training.TrainingSpec(dataset=api.training.DatasetSpec(path=faces), max_epochs=3, input_size=64,
                                         init=api.training.InitSpec(kind=api.training.INIT_KIND_RANDOM))
        name = running.client.trainings.StartTraining(api.training.StartTrainingRequest(spec=spec)).training.name
        request = api.training.StreamEpochMetricsRequest(name=name)

        def follow(_):
            events = running.client.trainings.StreamEpochMetrics(request)
            return [answer.event.sequence for answer in events if answer.event.sequence]

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            followed = list(pool.map(follow, range(200)))
        self.assertEqual(followed, [list(range(1, len(followed[0]) + 1))] * 200)
        training = running.client.trainings.GetTraining(api.training.GetTrainingRequest(name=name)).training
        self.assertEqual(training.last_sequence, len(followed[0]), training)


class Crashes(Network):
    def test_a_dataset_that_ends_the_server_twice_is_not_tried_again(self):
        running = server.Server("--threads", "1")
        self.addCleanup(running.close)
        large = png(6900, 6900)
        data = archive({"{}_{}.png".format(20 + number, number): large for number in range(40)})
        running.client.datasets.CreateDataset(api.dataset.CreateDatasetRequest(dataset_id="heavy", upload=self.upload(running, data)))

        def dataset():
            return running.client.datasets.GetDataset(api.dataset.GetDatasetRequest(name="datasets/heavy")).dataset

        for _ in range(2):
            server.wait_for(lambda: dataset().state == api.dataset.DATASET_STATE_SCANNING and dataset().progress.phase == "scan", "the dataset is scanned")
            running.kill_and_restart()
        failed = server.wait_for(lambda: dataset().state == api.dataset.DATASET_STATE_FAILED and dataset(), "the dataset failed")
        self.assertIn("killed 2 times", failed.failure)


if __name__ == "__main__":
    unittest.main()
