"""Server info, health, reflection and the HTTP pages of a new server."""

import json
import tempfile

from grpc_reflection.v1alpha import reflection_pb2
from google.protobuf import descriptor_pb2, duration_pb2

from api import dataset, model, prediction, system, training
from client.base import Code, MIB, SERVICES, ClientTest


def clear_json_names(messages):
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        clear_json_names(message.nested_type)


class SystemTest(ClientTest):
    """A server without trainings."""

    def test_server_info_names_versions_limits_and_roots(self):
        info = self.client.system.GetServerInfo(system.GetServerInfoRequest())
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+")
        self.assertRegex(info.libtorch_version, r"^2\.")
        self.assertRegex(info.device, r"^(cpu|cuda:\d+)$")
        self.assertGreaterEqual(info.threads, 1)
        self.assertEqual(info.limits.max_message_bytes, 16 * MIB)
        self.assertEqual(info.limits.max_image_bytes, 16 * MIB)
        self.assertEqual(info.limits.max_image_pixels, 50_000_000)
        self.assertEqual(info.limits.max_images_per_request, 64)
        self.assertEqual(info.limits.max_queued_images, 256)
        self.assertEqual(info.limits.max_queued_trainings, 100)
        self.assertEqual(info.limits.heartbeat_interval, duration_pb2.Duration(seconds=15))
        self.assertLessEqual({"annotate", "explain", "detect_faces"}, set(info.features))
        self.assertIn(tempfile.gettempdir(), info.data_roots)
        self.assertEqual(list(info.data_roots), list(info.weights_roots))
        self.assertGreater(info.start_time.seconds, 1_700_000_000)
        self.assertEqual(info.live_model, "")
        self.assertEqual(info.http_port, int(self.server.http_address.rsplit(":", 1)[1]))

    def test_each_service_has_a_health_and_prediction_does_not_serve_without_a_model(self):
        expected = {service: "SERVING" for service in [""] + SERVICES}
        expected["visage.v1.PredictionService"] = "NOT_SERVING"
        self.assertEqual({service: self.health_of(service) for service in expected}, expected)
        with self.refused(Code.NOT_FOUND):
            self.health_of("visage.v1.NoService")

    def test_reflection_lists_the_services_and_describes_them_as_the_protos_do(self):
        for version in ("v1", "v1alpha"):
            with self.subTest(version):
                # Both versions have the same messages; the Python package contains only one of
                # them.
                ask = self.client.channel.stream_stream(
                    "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo".format(version),
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
                requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
                requests += [reflection_pb2.ServerReflectionRequest(file_containing_symbol=service) for service in SERVICES]
                listed, *described = ask(iter(requests))
                names = {service.name for service in listed.list_services_response.service}
                self.assertLessEqual(set(SERVICES) | {"grpc.health.v1.Health"}, names)
                for service, answer, module in zip(SERVICES, described, (dataset, model, prediction, system, training)):
                    ours = descriptor_pb2.FileDescriptorProto()
                    module.DESCRIPTOR.CopyToProto(ours)
                    files = [descriptor_pb2.FileDescriptorProto.FromString(file)
                             for file in answer.file_descriptor_response.file_descriptor_proto]
                    theirs = next(file for file in files if file.name == ours.name)
                    clear_json_names(theirs.message_type)  # Python leaves them out, because they follow from the names.
                    self.assertEqual(theirs.service, ours.service, service)
                    self.assertEqual(theirs.message_type, ours.message_type, service)

    def test_http_pages_answer(self):
        status, _, text = self.server.fetch("/livez")
        self.assertEqual((status, text), (200, "ok\n"))
        status, headers, text = self.server.fetch("/readyz")
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        readiness = json.loads(text)
        self.assertTrue(readiness["ready"])
        self.assertEqual({component["name"] for component in readiness["components"]}, {"server", "model", "artifacts"})
        self.assertEqual(self.server.fetch("/")[0], 200)
        status, _, text = self.server.fetch("/endpoints")
        self.assertEqual(status, 200)
        for page in ("/metrics", "/livez", "/readyz"):
            self.assertIn(page, text)
        self.assertEqual(self.server.fetch("/nothing")[0], 404)
        self.assertEqual(self.server.fetch("/metrics", method="POST")[0], 405)

    def test_an_unknown_method_is_unimplemented(self):
        call = self.client.channel.unary_unary("/visage.v1.TrainingService/Nothing", request_serializer=bytes, response_deserializer=bytes)
        with self.refused(Code.UNIMPLEMENTED):
            call(b"")
