"""`POST /predict` on the HTTP port: one image in, JSON out, as Predict over gRPC."""

import http.client
import io
import json
import os
import shutil
import subprocess
import unittest

from PIL import Image

import server

FORM = "application/x-www-form-urlencoded"


def jpeg(pixels, size=None):
    buffer = io.BytesIO()
    pixels.convert("RGB").resize(size or pixels.size).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class PredictPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", "--threads", "1", "--max-message-bytes", str(1 << 20), "--max-image-bytes", str(1 << 20))
        cls.addClassCleanup(cls.server.close)
        faces = server.draw_faces(cls.server.path("faces"), count=3, seed=4)
        cls.paths = [os.path.join(faces, name) for name in sorted(os.listdir(faces))]
        with open(cls.paths[0], "rb") as file:
            cls.face = file.read()

    def post(self, body, query="", method="POST", address=None, **headers):
        """Sends a request; returns status, headers and the JSON of the body."""
        connection = http.client.HTTPConnection(address or self.server.http_address, timeout=server.DEADLINE_SECONDS)
        try:
            connection.request(method, "/predict" + query, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            text = response.read().decode()
            self.assertEqual(response.headers["content-type"], "application/json")
            self.assertTrue(text.endswith("}\n"), text)
            return response.status, response.headers, json.loads(text)
        finally:
            connection.close()

    def predicted(self, body, query="", **headers):
        status, _, answer = self.post(body, query, **headers)
        self.assertEqual(status, 200, answer)
        return answer

    def refused(self, expected, body, query="", **options):
        """Checks status and reason; returns the text of the error."""
        status, _, answer = self.post(body, query, **options)
        self.assertEqual((status, answer["reason"]), expected, answer)
        self.assertEqual(sorted(answer), ["error", "reason"])
        return answer["error"]

    def assert_interval(self, found, expected):
        for name in ("lower", "upper", "confidence"):
            self.assertAlmostEqual(found[name], getattr(expected, name), delta=1e-3)

    def test_an_image_of_any_content_type_is_predicted_as_over_grpc(self):
        response = self.server.client.predict(self.face)
        expected = response.predictions[0]
        for headers in ({}, {"content_type": FORM}, {"content_type": "image/png"}, {"content_type": "application/octet-stream"}):
            answer = self.predicted(self.face, **headers)
            self.assertEqual(sorted(answer), ["age", "height", "interval", "model_version", "width"])
            self.assertAlmostEqual(answer["age"], expected.age, delta=1e-3)
            self.assert_interval(answer["interval"], expected.interval)
            self.assertEqual((answer["model_version"], answer["width"], answer["height"]), (response.model_version, 96, 96))

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl_sends_a_file(self):
        url = "http://{}/predict?interval_level=0.5".format(self.server.http_address)
        done = subprocess.run(["curl", "--silent", "--show-error", "--noproxy", "*", "--data-binary", "@" + self.paths[0], url], stdout=subprocess.PIPE,
                              timeout=server.DEADLINE_SECONDS, check=True)
        answer = json.loads(done.stdout)
        expected = self.server.client.predict(self.face, interval_level=0.5).predictions[0]
        self.assertAlmostEqual(answer["age"], expected.age, delta=1e-3)
        self.assert_interval(answer["interval"], expected.interval)

    def test_parameters_select_the_version_and_the_level(self):
        for query in ("?version=1", "?version=live", "?version=models/age/versions/1", "?version=models%2Fage%2Fversions%2Flive&interval_level=0.8"):
            answer = self.predicted(self.face, query)
            self.assertEqual(answer["model_version"], "models/age/versions/1")
            self.assertEqual(answer["interval"]["confidence"], 0.8 if "0.8" in query else 0.9)

    def test_faces_are_those_of_predict(self):
        canvas = Image.new("RGB", (600, 300), (90, 120, 90))
        for index, path in enumerate(self.paths[:2]):
            canvas.paste(Image.open(path).resize((200, 200)), (40 + 280 * index, 50))
        group = jpeg(canvas)
        expected = self.server.client.predict(group, detect_faces=True).predictions[0]
        self.assertEqual(len(expected.faces), 2)
        answer = self.predicted(group, "?detect_faces")
        self.assertEqual(len(answer["faces"]), 2)
        for found, face in zip(answer["faces"], expected.faces):
            self.assertAlmostEqual(found["age"], face.age, delta=1e-3)
            self.assertAlmostEqual(found["score"], face.score, delta=1e-3)
            self.assert_interval(found["interval"], face.interval)
            for name, box in (("box", face.box), ("detected", face.detected)):
                self.assertEqual(found[name], {"left": box.left, "top": box.top, "width": box.width, "height": box.height})
        self.assertAlmostEqual(answer["age"], expected.faces[0].age, delta=1e-3)

    def test_an_image_without_a_face_has_no_age(self):
        wall = jpeg(Image.new("RGB", (120, 90), (200, 190, 180)))
        answer = self.predicted(wall, "?detect_faces=true")
        self.assertEqual((answer["age"], answer["interval"], answer["faces"]), (None, None, []))

    def test_errors_have_a_status_a_reason_and_a_remedy(self):
        self.assertIn("send a JPEG, PNG, WebP or BMP image", self.refused((400, "INVALID_IMAGE"), b"not an image"))
        self.assertIn("curl --data-binary @FILE", self.refused((400, "INVALID_FIELDS"), b""))
        # As `curl --data @FILE` sends it.
        stripped = self.face.translate(None, b"\0\r\n")
        self.assertIn("use `curl --data-binary @FILE`", self.refused((400, "INVALID_FIELDS"), stripped, content_type=FORM))
        self.assertIn("detect_faces, version or interval_level", self.refused((400, "INVALID_FIELDS"), self.face, "?faces=true"))
        self.assertIn("must be true or false", self.refused((400, "INVALID_FIELDS"), self.face, "?detect_faces=maybe"))
        self.assertIn("must be above 0 and below 1", self.refused((400, "INVALID_FIELDS"), self.face, "?interval_level=2"))
        self.refused((404, "NOT_FOUND"), self.face, "?version=7")
        self.assertIn("curl --data-binary @FILE",
                      self.refused((415, "INVALID_FIELDS"), b"--x\r\n\r\n--x--", content_type='multipart/form-data; boundary="x"'))
        self.refused((415, "NOT_SUPPORTED"), self.face, content_encoding="gzip")
        self.assertIn("max_message_bytes", self.refused((413, "BODY_TOO_LARGE"), bytes((1 << 20) + 1)))

    def test_pages_of_other_origins_cannot_send_an_image(self):
        own = "http://" + self.server.http_address
        self.predicted(self.face, origin=own, sec_fetch_site="same-origin")
        for headers in ({"origin": "https://example.org"}, {"sec-fetch-site": "cross-site"}):
            connection = http.client.HTTPConnection(self.server.http_address, timeout=server.DEADLINE_SECONDS)
            self.addCleanup(connection.close)
            connection.request("POST", "/predict", body=self.face, headers={"content-type": FORM, **headers})
            self.assertEqual(connection.getresponse().status, 403)

    def test_a_server_without_a_model_is_unavailable(self):
        empty = server.Server("--threads", "1")
        self.addCleanup(empty.close)
        self.refused((503, "NO_LIVE_MODEL"), self.face, address=empty.http_address)

    def test_other_methods_are_refused_with_the_command_that_works(self):
        status, headers, answer = self.post(None, method="GET")
        self.assertEqual((status, headers["allow"], answer["reason"]), (405, "POST", "NOT_SUPPORTED"))
        self.assertIn("curl --data-binary @FILE", answer["error"])

    def test_requests_are_counted_by_their_outcome(self):
        def counted():
            metrics = self.server.metrics()
            return [metrics['visage_http_requests_total{{route="/predict",code="{}"}}'.format(code)] for code in ("ok", "not_found")]

        before = counted()
        self.predicted(self.face)
        self.refused((404, "NOT_FOUND"), self.face, "?version=7")
        self.assertEqual(counted(), [count + 1 for count in before])


if __name__ == "__main__":
    unittest.main()
