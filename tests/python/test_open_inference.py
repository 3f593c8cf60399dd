"""Triton's unmodified Python clients: gRPC and HTTP, blocking, asynchronous and streaming."""

import asyncio
import base64
import io
import json
import os
import queue
import socket
import unittest
import urllib.error
import urllib.request

import grpc
import numpy
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

import api
import server
from api import model, training

try:
    import tritonclient.grpc
    import tritonclient.grpc.aio
    import tritonclient.http
    import tritonclient.http.aio
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    raise unittest.SkipTest("tritonclient is not installed: {}".format(error))

SIDE = 64
# ImageNet statistics, the default of trainings.
MEAN, STD = numpy.float32([0.485, 0.456, 0.406]), numpy.float32([0.229, 0.224, 0.225])
SERVICE = "inference.GRPCInferenceService"


def images_input(module, images, shape=None):
    """Encoded images as the tensor `image` of one of the two client packages."""
    tensor = module.InferInput("image", shape or [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(numpy.array(images, dtype=numpy.object_).reshape(tensor.shape()))
    return tensor


def pixels_input(module, pixels):
    tensor = module.InferInput("input", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels)
    return tensor


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def prepared(pixels):
    """Preprocesses pixels [S,S,3] on the client."""
    planes = (pixels.astype(numpy.float32) / 255 - MEAN) / STD
    return planes.transpose(2, 0, 1)[numpy.newaxis]


class OpenInferenceTest(unittest.TestCase):
    """Version 1 of `age` is live and calibrated; version 2 has too few validation images for an interval."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        # One thread, because tests run in parallel and libtorch's threads wait for each other by
        # spinning.
        cls.server = server.Server("--threads", "1")
        cls.addClassCleanup(cls.server.close)
        cls.client = cls.server.client
        cls.faces = server.draw_faces(cls.server.path("faces"), count=100, seed=1)
        few = server.draw_faces(cls.server.path("few"), count=20, seed=2)
        for identity, directory, promote in [("calibrated", cls.faces, training.PROMOTE_ALWAYS), ("not", few, training.PROMOTE_NEVER)]:
            spec = training.TrainingSpec(
                dataset=training.DatasetSpec(path=directory, validation_fraction=0.2), max_epochs=2, batch_size=16, input_size=SIDE,
                init=training.InitSpec(kind=training.INIT_KIND_RANDOM), promote=promote)
            name = cls.client.start(spec, training_id=identity).name
            cls.client.events(name)
            ended = cls.client.get(name)
            if ended.state != training.TRAINING_STATE_SUCCEEDED:
                raise AssertionError("{}\n{}".format(ended, cls.server.log()))
        cls.grpc = tritonclient.grpc.InferenceServerClient(cls.server.grpc_address)
        cls.addClassCleanup(cls.grpc.close)
        cls.http = tritonclient.http.InferenceServerClient(cls.server.http_address, concurrency=4)
        cls.addClassCleanup(cls.http.close)
        # Both have the same methods, but return messages or JSON, respectively.
        cls.both = [("grpc", cls.grpc, tritonclient.grpc), ("http", cls.http, tritonclient.http)]

    def read_faces(self, count):
        names = sorted(os.listdir(self.faces))[:count]
        faces = []
        for name in names:
            with open(os.path.join(self.faces, name), "rb") as file:
                faces.append(file.read())
        return faces

    def assert_answers(self, result, images, version=""):
        """Checks that the result equals that of Predict."""
        name = "models/age/versions/" + version if version else ""
        predictions = self.client.predict(*images, model=name).predictions
        expected = numpy.float32([[one.age] for one in predictions])
        ages = result.as_numpy("age")
        self.assertEqual((ages.dtype, ages.shape), (numpy.float32, expected.shape))
        # The images of a request may be in different batches.
        numpy.testing.assert_allclose(ages, expected, atol=1e-3)
        if not predictions[0].HasField("interval"):
            self.assertIsNone(result.as_numpy("interval"))
            return
        expected = numpy.float32([[one.interval.lower, one.interval.upper] for one in predictions])
        numpy.testing.assert_allclose(result.as_numpy("interval"), expected, atol=1e-3)

    def refused(self, call, status, *words):
        """Checks that the call fails with this status and a message with these words."""
        with self.assertRaises(InferenceServerException) as caught:
            call()
        error = caught.exception
        self.assertEqual(str(error.status()), status, error)
        for word in words:
            self.assertIn(word, error.message())

    # Metadata.

    def test_server_and_models_are_ready(self):
        for name, client, _ in self.both:
            with self.subTest(name):
                self.assertTrue(client.is_server_live())
                self.assertTrue(client.is_server_ready())
                ready = {("age", ""): True, ("age", "1"): True, ("age", "2"): True, ("age", "live"): True,
                         ("age", "3"): False, ("age", "nobody"): False, ("bert", ""): False, ("No Name", "1"): False}
                self.assertEqual({key: client.is_model_ready(*key) for key in ready}, ready)

    def test_server_metadata_announces_only_what_works(self):
        by_grpc = self.grpc.get_server_metadata(as_json=True)
        self.assertEqual(by_grpc["name"], "visage")
        self.assertEqual(set(by_grpc["extensions"]), {"binary_tensor_data", "model_configuration", "model_repository", "statistics"})
        self.assertEqual(self.http.get_server_metadata(), by_grpc)

    def test_model_metadata_tells_inputs_and_outputs(self):
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}, {"name": "input", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}]
        age, interval = ({"name": name, "datatype": "FP32", "shape": [-1, width]} for name, width in [("age", 1), ("interval", 2)])
        for version, outputs in [("", [age, interval]), ("1", [age, interval]), ("live", [age, interval]), ("2", [age])]:
            with self.subTest(version):
                found = self.http.get_model_metadata("age", version)
                properties = found.pop("properties")
                self.assertEqual(found, {"name": "age", "versions": ["1", "2"], "platform": "pytorch_libtorch", "inputs": inputs, "outputs": outputs})
                self.assertEqual((properties["input.mean"], properties["input.std"]), ("0.485,0.456,0.406", "0.229,0.224,0.225"))
                self.assertEqual(properties.get("interval.confidence"), "0.9" if interval in outputs else None)
                if version in ("", "live"):  # Which is always loaded.
                    self.assertIn(properties["precision"], ("f32", "bf16", "f16", "f16-weights"))
                    self.assertLessEqual(float(properties["precision.difference"]), 0.1)
                message = self.grpc.get_model_metadata("age", version)
                self.assertEqual([[tensor.name, tensor.datatype, list(tensor.shape)] for tensor in [*message.inputs, *message.outputs]],
                                 [list(tensor.values()) for tensor in inputs + outputs])
        for _, client, _ in self.both:
            with self.assertRaises(InferenceServerException):
                client.get_model_metadata("bert")

    def test_model_configuration_is_tritons(self):
        config = self.grpc.get_model_config("age").config
        self.assertEqual((config.name, config.platform, config.backend, config.max_batch_size), ("age", "pytorch_libtorch", "pytorch", 64))
        self.assertEqual([(one.name, one.data_type, list(one.dims), one.optional) for one in config.input],
                         [("image", 13, [1], True), ("input", 11, [3, SIDE, SIDE], True)])  # TYPE_STRING and TYPE_FP32
        self.assertEqual([(one.name, one.data_type, list(one.dims)) for one in config.output], [("age", 11, [1]), ("interval", 11, [2])])
        self.assertEqual(list(config.dynamic_batching.preferred_batch_size), [32])
        self.assertFalse(config.model_transaction_policy.decoupled)
        self.assertEqual(config.version_policy.WhichOneof("policy_choice"), "all")
        by_http = self.http.get_model_config("age")
        self.assertEqual(by_http["max_batch_size"], 64)
        self.assertEqual([(one["name"], one["data_type"], one["dims"]) for one in by_http["input"]],
                         [("image", "TYPE_STRING", [1]), ("input", "TYPE_FP32", [3, SIDE, SIDE])])

    def test_the_repository_lists_all_versions(self):
        parent = "models/other"
        self.client.models.RegisterVersion(model.RegisterVersionRequest(checkpoint="trainings/not/checkpoints/best", parent=parent))
        expected = [("age", "1", "READY"), ("age", "2", "READY"), ("other", "1", "READY")]
        index = self.grpc.get_model_repository_index()
        self.assertEqual([(one.name, one.version, one.state) for one in index.models], expected)
        index = self.http.get_model_repository_index()
        self.assertEqual([(one["name"], one["version"], one["state"]) for one in index], expected)
        # It has versions, but no live one.
        face, = self.read_faces(1)
        for name, client, module in self.both:
            status = {"grpc": "StatusCode.FAILED_PRECONDITION", "http": "503"}[name]
            self.refused(lambda: client.infer("other", [images_input(module, [face])]), status, "no live version")
            self.assertEqual(client.infer("other", [images_input(module, [face])], model_version="1").as_numpy("age").shape, (1, 1))

    def test_the_live_version_is_loaded_and_nothing_is_unloaded(self):
        for name, client, _ in self.both:
            with self.subTest(name):
                client.load_model("age")
                missing, wrong, unsupported = {
                    "grpc": ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT", "StatusCode.UNIMPLEMENTED"), "http": ("404", "400", "501")}[name]
                self.refused(lambda: client.load_model("bert"), missing, "bert")
                self.refused(lambda: client.load_model("age", config="{}"), wrong, "as its training stored it")
                self.refused(lambda: client.unload_model("age"), unsupported, "DeleteAlias")
                self.assertTrue(client.is_model_ready("age"))

    def test_messages_and_methods_have_tritons_numbers(self):
        """Compares the service by reflection with the descriptors of Triton's client."""
        stub = reflection_pb2_grpc.ServerReflectionStub(self.client.channel)
        answer, = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)]))
        ours, = [file for file in map(descriptor_pb2.FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
                 if file.package == "inference"]
        theirs = {}

        def collect(messages, prefix):
            for message in messages:
                theirs[prefix + message.name] = message
                collect(message.nested_type, prefix + message.name + ".")

        def shape(field):
            return field.name, field.number, field.type, field.label, field.type_name

        def compare(message, name):
            known = {shape(field) for field in theirs[name].field}
            unknown = {shape(field)[:2] for field in message.field} - {one[:2] for one in known}
            self.assertEqual(unknown, {("properties", 6)} if name == "ModelMetadataResponse" else set(), name)
            self.assertLessEqual({shape(field) for field in message.field if (field.name, field.number) not in unknown}, known, name)
            for enum in message.enum_type:
                compare_enum(enum, theirs[name].enum_type)
            for nested in message.nested_type:
                if (name, nested.name) != ("ModelMetadataResponse", "PropertiesEntry"):
                    compare(nested, name + "." + nested.name)

        def compare_enum(enum, candidates):
            same, = [other for other in candidates if other.name == enum.name]
            self.assertEqual([(value.name, value.number) for value in enum.value], [(value.name, value.number) for value in same.value])

        files = []
        for module in (service_pb2, tritonclient.grpc.model_config_pb2):
            file = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(file)
            files.append(file)
            collect(file.message_type, "")
        for message in ours.message_type:
            compare(message, message.name)
        for enum in ours.enum_type:
            compare_enum(enum, [one for file in files for one in file.enum_type])
        methods = {(one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming) for one in files[0].service[0].method}
        self.assertLessEqual({(one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming)
                              for one in ours.service[0].method}, methods)
        self.assertEqual(len(ours.service[0].method), 12)

    def test_health_names_the_service(self):
        status = self.client.health.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status
        self.assertEqual(status, health_pb2.HealthCheckResponse.SERVING)

    # Predictions.

    def test_encoded_images_get_the_ages_that_predict_gives(self):
        images = self.read_faces(5)
        for name, client, module in self.both:
            for shape in ([5, 1], [5]):
                with self.subTest(name, shape=shape):
                    result = client.infer("age", [images_input(module, images, shape)], request_id="seven")
                    self.assert_answers(result, images)
                    response = result.get_response(as_json=True) if name == "grpc" else result.get_response()
                    self.assertEqual((response["model_name"], response["model_version"], response["id"]), ("age", "1", "seven"))
                    interval = result.get_output("interval")
                    confidence = interval.parameters["confidence"].double_param if name == "grpc" else interval["parameters"]["confidence"]
                    self.assertEqual(confidence, 0.9)

    def test_versions_are_named_by_number_alias_or_not_at_all(self):
        images = self.read_faces(2)
        for name, client, module in self.both:
            for version, number in [("", "1"), ("1", "1"), ("live", "1"), ("2", "2")]:
                with self.subTest(name, version=version):
                    result = client.infer("age", [images_input(module, images)], model_version=version)
                    self.assert_answers(result, images, number)
                    response = result.get_response()
                    self.assertEqual(response.model_version if name == "grpc" else response["model_version"], number)

    def test_images_that_the_client_prepared_get_the_age_of_their_images(self):
        pixels = numpy.random.default_rng(5).integers(0, 256, size=(3, SIDE, SIDE, 3), dtype=numpy.uint8)
        images = [png(one) for one in pixels]
        tensor = numpy.concatenate([prepared(one) for one in pixels])
        for name, client, module in self.both:
            with self.subTest(name):
                self.assert_answers(client.infer("age", [pixels_input(module, tensor)]), images)
        # The same with numbers in JSON.
        by_json = tritonclient.http.InferInput("input", list(tensor.shape), "FP32")
        by_json.set_data_from_numpy(tensor, binary_data=False)
        self.assert_answers(self.http.infer("age", [by_json]), images)

    def test_outputs_come_as_they_are_asked_for(self):
        images = self.read_faces(2)
        for name, client, module in self.both:
            for names in (["age"], ["interval"], ["interval", "age"]):
                with self.subTest(name, names=names):
                    result = client.infer("age", [images_input(module, images)], outputs=[module.InferRequestedOutput(one) for one in names])
                    response = result.get_response()
                    outputs = response.outputs if name == "grpc" else response["outputs"]
                    self.assertEqual([one.name if name == "grpc" else one["name"] for one in outputs], names)
                    self.assertEqual(result.as_numpy("interval") is None, "interval" not in names)
        # Numbers in JSON instead of binary data after it.
        plain = [tritonclient.http.InferRequestedOutput(one, binary_data=False) for one in ("age", "interval")]
        result = self.http.infer("age", [images_input(tritonclient.http, images)], outputs=plain)
        self.assertEqual(len(result.get_output("age")["data"]), 2)
        self.assert_answers(result, images)

    def test_the_level_of_the_interval_can_be_asked_for(self):
        images = self.read_faces(1)
        expected = self.client.predict(*images, interval_level=0.5).predictions[0].interval
        for name, client, module in self.both:
            with self.subTest(name):
                # Parameters of other servers are ignored.
                result = client.infer("age", [images_input(module, images)], parameters={"interval_level": 0.5, "colour": "blue"}, priority=3)
                numpy.testing.assert_allclose(result.as_numpy("interval"), [[expected.lower, expected.upper]], atol=1e-3)

    def test_compressed_requests_are_read(self):
        images = self.read_faces(2)
        for algorithm in ("gzip", "deflate"):
            with self.subTest(algorithm):
                result = self.grpc.infer("age", [images_input(tritonclient.grpc, images)], compression_algorithm=algorithm)
                self.assert_answers(result, images)
        self.refused(lambda: self.http.infer("age", [images_input(tritonclient.http, images)], request_compression_algorithm="gzip"), "415", "gzip")

    def test_many_requests_at_once_get_each_its_own_answer(self):
        faces = self.read_faces(24)

        async def ask(module, address):
            async with module.InferenceServerClient(address) as client:
                calls = [client.infer("age", [images_input(inputs_of[module], [face])]) for face in faces]
                return await asyncio.gather(*calls)

        inputs_of = {tritonclient.grpc.aio: tritonclient.grpc, tritonclient.http.aio: tritonclient.http}
        for module, address in [(tritonclient.grpc.aio, self.server.grpc_address), (tritonclient.http.aio, self.server.http_address)]:
            with self.subTest(module.__name__):
                for face, result in zip(faces, asyncio.run(ask(module, address))):
                    self.assert_answers(result, [face])

    def test_a_stream_answers_in_order_and_goes_on_after_an_error(self):
        faces = self.read_faces(8)
        answers = queue.Queue()
        self.grpc.start_stream(callback=lambda result, error: answers.put((result, error)))
        try:
            for number, face in enumerate(faces):
                image = b"no image" if number == 3 else face
                self.grpc.async_stream_infer("age", [images_input(tritonclient.grpc, [image])], request_id=str(number))
            for number, face in enumerate(faces):
                result, error = answers.get(timeout=api.DEADLINE_SECONDS)
                if number == 3:
                    self.assertIn("image 0", str(error))
                else:
                    self.assertIsNone(error)
                    self.assertEqual(result.get_response().id, str(number))
                    self.assert_answers(result, [face])
        finally:
            self.grpc.stop_stream()

    def test_an_error_ends_a_stream_that_asks_for_that(self):
        answers = queue.Queue()
        self.grpc.start_stream(callback=lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
        try:
            self.grpc.async_stream_infer("age", [images_input(tritonclient.grpc, [b"no image"])])
            result, error = answers.get(timeout=api.DEADLINE_SECONDS)
            self.assertIsNone(result)
            self.assertEqual(error.status(), "StatusCode.INVALID_ARGUMENT")
        finally:
            self.grpc.stop_stream()

    def test_an_asynchronous_stream_answers(self):
        faces = self.read_faces(3)

        async def requests():
            for face in faces:
                yield {"model_name": "age", "inputs": [images_input(tritonclient.grpc, [face])]}

        async def ask():
            async with tritonclient.grpc.aio.InferenceServerClient(self.server.grpc_address) as client:
                return [answer async for answer in client.stream_infer(requests())]

        answers = asyncio.run(ask())
        self.assertEqual(len(answers), len(faces))
        for face, (result, error) in zip(faces, answers):
            self.assertIsNone(error)
            self.assert_answers(result, [face])

    def test_an_image_in_base64_is_read_from_json(self):
        face, = self.read_faces(1)
        request = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(face).decode()]}]}
        status, answer = self.post("/v2/models/age/infer", json.dumps(request).encode())
        self.assertEqual(status, 200, answer)
        age, interval = answer["outputs"]
        self.assertEqual((age["name"], age["datatype"], age["shape"], interval["shape"]), ("age", "FP32", [1, 1], [1, 2]))
        self.assertAlmostEqual(age["data"][0], self.client.ages(face)[0], places=3)

    def test_images_in_json_get_their_age_in_every_form_that_clients_write(self):
        face, = self.read_faces(1)
        text, url_safe = base64.b64encode(face).decode(), base64.urlsafe_b64encode(face).decode()
        self.assertNotEqual(text, url_safe)
        forms = {
            "base64": [text], "URL-safe": [url_safe], "unpadded": [url_safe.rstrip("=")], "lines": [base64.encodebytes(face).decode()],
            "MIME lines": ["\r\n".join(text[start:start + 76] for start in range(0, len(text), 76))], "nested": [[text]],
            "data URL": ["data:image/png;base64," + text], "URL-safe data URL": ["data:image/png;base64," + url_safe],
            "TensorFlow Serving": [{"b64": text}], "bytes": list(face), "nested bytes": [list(face)], "a list in a list": [[list(face)]],
        }
        expected = self.client.ages(face)[0]
        for name, data in forms.items():
            with self.subTest(name):
                status, answer = self.post("/v2/models/age/infer", json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]}).encode())
                self.assertEqual(status, 200, answer)
                self.assertAlmostEqual(answer["outputs"][0]["data"][0], expected, places=3)
        # Two images, as lists of bytes and as strings.
        for data in ([list(face), list(face)], [text, "data:image/png;base64," + url_safe]):
            status, answer = self.post("/v2/models/age/infer", json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 1], "data": data}]}).encode())
            self.assertEqual((status, len(answer.get("outputs", [{"data": []}])[0]["data"])), (200, 2), answer)

    def test_images_in_json_that_are_in_no_such_form_are_refused_with_what_to_send(self):
        face, = self.read_faces(1)
        refused = {
            "a file name": ([1], ["me.jpg"]), "percent-encoded": ([1], ["data:image/png,%89PNG"]), "signed bytes": ([1], [-119, 80, 78, 71]),
            "fractions": ([1], [0.5, 1.5]), "mixed": ([2], [list(face), base64.b64encode(face).decode()]), "an object": ([1], [{"url": "https://example.org"}]),
            "latin-1": ([1], [face.decode("latin-1")]),
        }
        for name, (shape, data) in refused.items():
            with self.subTest(name):
                status, answer = self.post("/v2/models/age/infer", json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": shape, "data": data}]}).encode())
                self.assertEqual(status, 400, answer)
                self.assertIn("base64", answer["error"])
        # The shape counts images, not bytes.
        status, answer = self.post("/v2/models/age/infer", json.dumps(
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(face)], "data": list(face)}]}).encode())
        self.assertEqual(status, 400, answer)
        self.assertIn("the shape of 1 images must be [1] or [1,1]", answer["error"])

    def test_an_image_alone_is_a_request(self):
        face, = self.read_faces(1)
        expected = self.client.ages(face)[0]
        for body in (face, len(face).to_bytes(4, "little") + face):
            status, answer = self.post("/v2/models/age/infer", body, {"Inference-Header-Content-Length": "0"})
            self.assertEqual(status, 200, answer)
            self.assertAlmostEqual(answer["outputs"][0]["data"][0], expected, places=3)
        status, answer = self.post("/v2/models/age/infer", face)
        self.assertEqual(status, 400, answer)
        self.assertIn("Inference-Header-Content-Length: 0", answer["error"])

    def test_a_refused_coding_is_answered_with_the_codings_that_are_read(self):
        request = urllib.request.Request("http://{}/v2/models/age/infer".format(self.server.http_address), b"{}", {"Content-Encoding": "gzip"}, method="POST")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=api.DEADLINE_SECONDS)
        with caught.exception as refused:
            self.assertEqual((refused.code, refused.headers["Accept-Encoding"]), (415, "identity"))

    # Errors.

    def post(self, path, body, headers=()):
        request = urllib.request.Request("http://{}{}".format(self.server.http_address, path), body, dict(headers), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=api.DEADLINE_SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def test_wrong_requests_say_what_is_wrong(self):
        face, = self.read_faces(1)
        zeros = numpy.zeros((1, 3, SIDE, SIDE), numpy.float32)
        for name, client, module in self.both:
            image, pixels = images_input(module, [face]), pixels_input(module, zeros)
            renamed = module.InferInput("photo", [1, 1], "BYTES")
            renamed.set_data_from_numpy(numpy.array([[face]], dtype=numpy.object_))
            doubles = module.InferInput("input", [1, 3, SIDE, SIDE], "FP64")
            doubles.set_data_from_numpy(zeros.astype(numpy.float64))
            small = pixels_input(module, numpy.zeros((1, 3, SIDE, SIDE - 1), numpy.float32))
            nothing = pixels_input(module, zeros * numpy.float32("nan"))
            huge = pixels_input(module, zeros + numpy.float32(3e38))
            many = images_input(module, 65 * [face])
            unknown = module.InferRequestedOutput("height")
            classes = module.InferRequestedOutput("age", class_count=3)
            cases = {
                "an unknown input": (dict(inputs=[renamed]), "inputs[0].name", "photo"),
                "both inputs": (dict(inputs=[image, pixels]), "exactly one"),
                "another datatype": (dict(inputs=[doubles]), "inputs[0].datatype", "FP64", "FP32"),
                "another shape": (dict(inputs=[small]), "inputs[0].shape", "[N,3,{0},{0}]".format(SIDE)),
                "no numbers": (dict(inputs=[nothing]), "image 0", "not finite"),
                "huge numbers": (dict(inputs=[huge]), "image 0", "too large"),
                "a bad image": (dict(inputs=[images_input(module, [face, b"hello", face])]), "image 1"),
                "an empty image": (dict(inputs=[images_input(module, [face, b""])]), "image 1", "0 bytes"),
                "too many": (dict(inputs=[many]), "65 images are too many; at most 64"),
                "an unknown output": (dict(inputs=[image], outputs=[unknown]), "outputs[0].name", "height"),
                "an output twice": (dict(inputs=[image], outputs=[module.InferRequestedOutput("age")] * 2), "twice"),
                "classes": (dict(inputs=[image], outputs=[classes]), "classification"),
                "a wrong level": (dict(inputs=[image], parameters={"interval_level": 1.5}), "interval_level"),
                "no number": (dict(inputs=[image], parameters={"interval_level": "much"}), "interval_level"),
                "a negative time": (dict(inputs=[image], timeout=-5), "timeout"),
                "an interval of a version without": (
                    dict(inputs=[image], outputs=[module.InferRequestedOutput("interval")], model_version="2"),
                    "too few validation images; set the parameter interval_level to one of 0.5, 0.8"),
                "no version": (dict(inputs=[image], model_version="1.5"), "model_version", "1.5"),
            }
            for what, (arguments, *words) in cases.items():
                with self.subTest(name, what=what):
                    status = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}[name]
                    self.refused(lambda: client.infer("age", **arguments), status, *words)
            status = {"grpc": "StatusCode.NOT_FOUND", "http": "404"}[name]
            self.refused(lambda: client.infer("bert", [image]), status, "bert")
            self.refused(lambda: client.infer("age", [image], model_version="77"), status, "77")
            self.assert_answers(client.infer("age", [image]), [face])

    def test_work_whose_time_is_over_is_not_computed(self):
        # 64 images of 16 million pixels each, in 3 MB.
        slow = 64 * [png(numpy.full((4000, 4000, 3), 90, numpy.uint8))]
        self.refused(lambda: self.grpc.infer("age", [images_input(tritonclient.grpc, slow)], client_timeout=0.2), "StatusCode.DEADLINE_EXCEEDED")
        # The timeout of the server, in microseconds.
        self.refused(lambda: self.grpc.infer("age", [images_input(tritonclient.grpc, slow)], timeout=1000), "StatusCode.DEADLINE_EXCEEDED")
        self.refused(lambda: self.http.infer("age", [images_input(tritonclient.http, slow)], timeout=1000), "504")

    def test_http_refuses_what_it_cannot_read(self):
        infer = "/v2/models/age/infer"
        length = "Inference-Header-Content-Length"
        cases = [
            (infer, b"", {}, 400, "must be the JSON of an inference request"),
            (infer, b'{"inputs": 3}', {}, 400, "invalid type: integer `3`"),
            (infer, b'{"inputs": []}', {}, 400, "got 0"),
            (infer, b'{"inputs": []}', {length: "99"}, 400, "at most the 14 bytes of the body, got 99"),
            (infer, b'{"inputs": []}', {length: "many"}, 400, length),
            (infer, b"[" * 100_000, {}, 400, "must be the JSON"),
            (infer, bytes(17 << 20), {}, 413, "max_message_bytes"),
            ("/v2/models/age", b"", {}, 405, "GET"),
            ("/v2/nothing", b"", {}, 404, "no such path"),
            ("/v2/repository/models/age/load", b"{", {}, 400, "body"),
        ]
        for path, body, headers, status, words in cases:
            with self.subTest(words):
                found, answer = self.post(path, body, headers)
                self.assertEqual(found, status, answer)
                self.assertEqual(list(answer), ["error", "reason"])
                self.assertIn(words, answer["error"])
        for path, expected in [(infer, 405), ("/v2/models/%ff", 400), ("/v2/models/a%20b/ready", 404), ("/v2/models/age/versions/0", 400)]:
            with self.subTest(path):
                status, _, text = self.server.fetch(path)
                self.assertEqual((status, list(json.loads(text))), (expected, ["error", "reason"]))

    def test_http_bodies_without_a_length_are_read_up_to_the_limit(self):
        def ask(chunks):
            host, port = self.server.http_address.split(":")
            with socket.create_connection((host, int(port)), timeout=api.DEADLINE_SECONDS) as connection:
                connection.sendall(b"POST /v2/models/age/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
                for chunk in chunks:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                connection.sendall(b"0\r\n\r\n")
                with connection.makefile("rb") as answer:
                    return answer.readline().split()[1]

        self.assertEqual(ask(20 * [bytes(1 << 20)]), b"413")
        self.assertEqual(ask([b'{"inputs"', b": []}"]), b"400")

    # Metrics and statistics.

    def test_statistics_count_requests_images_and_forward_passes(self):
        def of_version(version=""):
            statistics, = self.grpc.get_inference_statistics("age", version).model_stats
            return statistics

        before, other = of_version(), of_version("2")
        images = self.read_faces(5)
        self.grpc.infer("age", [images_input(tritonclient.grpc, images)])
        self.http.infer("age", [images_input(tritonclient.http, images[:2])])
        self.client.predict(images[0])
        self.refused(lambda: self.grpc.infer("age", [images_input(tritonclient.grpc, [b""])]), "StatusCode.INVALID_ARGUMENT")
        after = of_version()
        self.assertEqual((after.name, after.version), ("age", "1"))
        self.assertEqual(after.inference_count - before.inference_count, 8)
        was, now = before.inference_stats, after.inference_stats
        for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            self.assertEqual(getattr(now, name).count - getattr(was, name).count, 3, name)
        self.assertEqual(now.fail.count - was.fail.count, 1)
        spent = {name: getattr(now, name).ns - getattr(was, name).ns for name in ("success", "queue", "compute_input", "compute_infer")}
        self.assertTrue(0 < spent["compute_input"] < spent["success"] and 0 < spent["compute_infer"] < spent["success"], spent)
        self.assertTrue(3 <= after.execution_count - before.execution_count <= 8)
        batches = {one.batch_size: one.compute_infer.count for one in after.batch_stats}
        self.assertEqual(sum(batches.values()), after.execution_count)
        self.assertEqual(sum(size * count for size, count in batches.items()), after.inference_count)
        self.assertGreaterEqual(after.last_inference, before.last_inference)
        self.assertEqual(of_version("2"), other)
        by_http, = self.http.get_inference_statistics("age")["model_stats"]
        self.assertEqual(by_http["inference_count"], after.inference_count)
        every = {(one["name"], one["version"]) for one in self.http.get_inference_statistics()["model_stats"]}
        self.assertIn(("age", "1"), every)

    def test_calls_are_counted_by_method_and_path(self):
        face, = self.read_faces(1)
        series = ['visage_rpc_requests_total{method="inference.GRPCInferenceService/ModelInfer",code="ok"}',
                  'visage_rpc_requests_total{method="inference.GRPCInferenceService/ModelInfer",code="not_found"}',
                  'visage_http_requests_total{route="/v2/models/{model}/infer",code="ok"}',
                  'visage_http_requests_total{route="/v2/models/{model}/infer",code="not_found"}',
                  'visage_http_duration_seconds_count{route="/v2/models/{model}/infer"}']
        before = self.server.metrics()
        for name, client, module in self.both:
            client.infer("age", [images_input(module, [face])])
            self.refused(lambda: client.infer("bert", [images_input(module, [face])]), {"grpc": "StatusCode.NOT_FOUND", "http": "404"}[name])

        def counted():
            now = self.server.metrics()
            return [now[one] - before[one] for one in series] == [1, 1, 1, 1, 2]

        server.wait_for(counted, "the calls are counted", seconds=30)
        self.assertNotIn("bert", self.server.fetch("/metrics")[2])


class WithoutModelTest(unittest.TestCase):
    def test_a_server_without_a_model_is_live_and_says_what_is_missing(self):
        one = server.Server()
        self.addCleanup(one.close)
        for client, module, status in [(tritonclient.grpc.InferenceServerClient(one.grpc_address), tritonclient.grpc, "StatusCode.FAILED_PRECONDITION"),
                                       (tritonclient.http.InferenceServerClient(one.http_address), tritonclient.http, "503")]:
            self.addCleanup(client.close)
            self.assertTrue(client.is_server_live())
            self.assertFalse(client.is_model_ready("age"))
            with self.assertRaises(InferenceServerException) as caught:
                client.infer("age", [images_input(module, [b"x"])])
            self.assertEqual(caught.exception.status(), status)
            self.assertIn("no live version", caught.exception.message())
        self.assertEqual(tritonclient.grpc.InferenceServerClient(one.grpc_address).get_model_repository_index().models[:], [])


if __name__ == "__main__":
    unittest.main()
