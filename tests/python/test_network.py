"""What a stranger on the network, or a page in a visitor's browser, can do to a server with default settings."""

import gzip
import http.client
import io
import json
import os
import re
import socket
import struct
import tarfile
import threading
import time
import unittest
import zlib

import grpc

import api
import server

MIB = 1 << 20


def png(width, height, depth=8, color=2):
    """A black PNG; `color` is the color type of its header: 2 for RGB, 6 for RGBA."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = width * {2: 3, 6: 4}[color] * depth // 8
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + row)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def archive(files):
    """A gzipped tar of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def frame(message=b""):
    """A message of gRPC-Web."""
    return b"\x00" + struct.pack(">I", len(message)) + message


class Network(unittest.TestCase):
    def ask(self, address, method, path, body=b"", headers=None):
        """Status, body and headers of a request with exactly these headers and a Content-Length."""
        connection = http.client.HTTPConnection(address, timeout=api.DEADLINE_SECONDS)
        self.addCleanup(connection.close)
        headers = {"Host": address, **(headers or {})}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}

    def upload(self, running, data):
        status, body, _ = self.ask(running.http_address, "POST", "/datasets/uploads", headers={"Upload-Length": str(len(data))})
        self.assertEqual(status, 201, body)
        upload = json.loads(body)["upload"]
        status, body, _ = self.ask(running.http_address, "PATCH", "/datasets/uploads/" + upload, data,
                                   {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"})
        self.assertEqual(status, 204, body)
        return upload

    def memory(self, running, field):
        """A field of the server's /proc/PID/status in bytes."""
        with open("/proc/{}/status".format(running.process.pid), encoding="ascii") as file:
            return int(re.search(field + r":\s*(\d+) kB", file.read()).group(1)) * 1024


class DefaultSettings(Network):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", "--threads", "1", "--stall-timeout", "1s")
        cls.addClassCleanup(cls.server.close)

    def ports(self):
        return self.server.grpc_address, self.server.http_address

    def test_another_name_of_the_server_is_refused(self):
        for address in self.ports():
            evil = "evil.example:" + address.rsplit(":", 1)[1]
            headers = {"Host": evil, "Origin": "http://" + evil, "Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"}
            status, body, found = self.ask(address, "POST", "/visage.v1.SystemService/GetServerInfo", frame(), headers)
            self.assertEqual((status, found.get("grpc-status")), (200, "7"), body)
            self.assertIn("allowed_hosts", found["grpc-message"])
            self.assertEqual(body, b"")
        for path in ("/", "/metrics", "/readyz", "/v2", "/endpoints"):
            status, body, _ = self.ask(self.server.http_address, "GET", path, headers={"Host": "evil.example"})
            self.assertEqual(status, 421, path)
            self.assertIn(b"allowed_hosts", body)

    def test_a_page_of_another_site_cannot_post(self):
        address = self.server.http_address
        for path, headers in (
            ("/v2/models/age/infer", {"Origin": "https://evil.example", "Content-Type": "text/plain"}),
            ("/v2/repository/index", {"Origin": "null", "Content-Type": "application/json"}),
            ("/predict", {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/x-www-form-urlencoded"}),
            ("/datasets/uploads", {"Origin": "https://evil.example", "Upload-Length": "10"}),
        ):
            status, body, _ = self.ask(address, "POST", path, b"{}", headers)
            self.assertEqual(status, 403, (path, body))
        status, body, _ = self.ask(address, "POST", "/v2/repository/index", b"{}", {"Origin": "http://" + address, "Content-Type": "application/json"})
        self.assertEqual(status, 200, body)

    def test_browsers_get_the_headers_that_protect_pages(self):
        for path in ("/", "/metrics", "/readyz", "/no-such-page"):
            _, _, headers = self.ask(self.server.http_address, "GET", path)
            self.assertEqual(headers["x-content-type-options"], "nosniff", path)
            self.assertEqual(headers["cross-origin-resource-policy"], "same-origin", path)
            self.assertEqual(headers["referrer-policy"], "no-referrer", path)

    def test_list_elements_are_counted_before_a_message_is_decoded(self):
        elements = 1_000_000
        cases = {
            "/inference.GRPCInferenceService/ModelInfer": b"\x2a\x00" * elements,
            "/visage.v1.PredictionService/Predict": b"\x0a\x00" * elements,
        }
        before = self.memory(self.server, "VmHWM")
        with grpc.insecure_channel(self.server.grpc_address) as channel:
            for path, message in cases.items():
                call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
                with self.assertRaises(grpc.RpcError) as refused:
                    call(message, timeout=api.DEADLINE_SECONDS, compression=grpc.Compression.NoCompression)
                self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn("at most 20000 elements", refused.exception.details())
        self.assertLess(self.memory(self.server, "VmHWM") - before, 64 * MIB)

    def test_unfinished_requests_are_ended(self):
        for address in self.ports():
            for start in (
                b"",
                b"PRI * HTTP/2.0\r\n",
                b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ",
                b"POST /visage.v1.SystemService/GetServerInfo HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/grpc-web+proto\r\nContent-Length: 100\r\n\r\n",
            ):
                with socket.create_connection(address.rsplit(":", 1), timeout=api.DEADLINE_SECONDS) as connection:
                    connection.sendall(start)
                    # Ends when the server closes the connection.
                    while connection.recv(65536):
                        pass

    def test_a_flood_of_writes_does_not_delay_another_client(self):
        name = "models/age/versions/1"
        path = "/visage.v1.ModelService/SetAlias"

        def request(alias):
            return b"\x0a" + bytes([len(name)]) + name.encode() + b"\x12" + bytes([len(alias)]) + alias.encode()

        with grpc.insecure_channel(self.server.grpc_address, [("grpc.use_local_subchannel_pool", 1)]) as flood, \
                grpc.insecure_channel(self.server.grpc_address, [("grpc.use_local_subchannel_pool", 1)]) as other:
            send = flood.unary_unary(path)
            write = other.unary_unary(path)
            write(request("calm"), timeout=api.DEADLINE_SECONDS)
            # The same few aliases, so that the model does not get thousands.
            running = [send.future(request("flood-{}".format(number % 8))) for number in range(2000)]
            started = time.monotonic()
            write(request("calm-again"), timeout=api.DEADLINE_SECONDS)
            took = time.monotonic() - started
            for call in running:
                call.cancel()
        self.assertLess(took, 1)

    def test_large_images_are_decoded_one_after_the_other(self):
        image = png(6900, 6900, depth=16, color=6)
        self.assertLess(len(image), MIB)
        before = self.memory(self.server, "VmRSS")
        with open("/proc/{}/clear_refs".format(self.server.process.pid), "w", encoding="ascii") as file:
            file.write("5")

        def predict():
            status, body, _ = self.ask(self.server.http_address, "POST", "/predict", image)
            self.assertEqual(status, 200, body)

        threads = [threading.Thread(target=predict) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLess(self.memory(self.server, "VmHWM") - before, 512 * MIB)

    def test_compressed_bytes_count_as_decompressed(self):
        # 16 MiB of zeros in one field, 16 KiB on the wire: refused by its size, not held.
        message = b"\x0a" + b"\xff\xff\xff\x07" + bytes(16 * MIB)
        body = frame(gzip.compress(message, 9))
        body = b"\x01" + body[1:]
        headers = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1", "grpc-encoding": "gzip"}
        _, body, found = self.ask(self.server.grpc_address, "POST", "/visage.v1.PredictionService/Predict", body, headers)
        status = found.get("grpc-status") or re.search(rb"grpc-status:\s*(\d+)", body).group(1).decode()
        self.assertIn(status, ("8", "11"), body)


class Uploads(Network):
    def setUp(self):
        self.server = server.Server("--threads", "1")
        self.addCleanup(self.server.close)

    def test_a_manifest_names_files_of_its_own_archive_only(self):
        foreign = os.path.join(self.server.directory, "foreign")
        os.mkdir(foreign)
        with open(os.path.join(foreign, "passport.png"), "wb") as file:
            file.write(png(64, 64))
        rows = ["{}/passport.png,30".format(foreign), "{}/missing.png,31".format(foreign), "/etc/passwd,32", "a.png,33", "b.png,34"]
        manifest = "path,age\n" + "\n".join(rows) + "\n"
        data = archive({"manifest.csv": manifest.encode(), "a.png": png(64, 64), "b.png": png(65, 64)})
        datasets = self.server.client.datasets
        datasets.CreateDataset(api.dataset.CreateDatasetRequest(dataset_id="probe", upload=self.upload(self.server, data)))

        def dataset():
            found = datasets.GetDataset(api.dataset.GetDatasetRequest(name="datasets/probe")).dataset
            return found if found.state in (api.dataset.DATASET_STATE_READY, api.dataset.DATASET_STATE_FAILED) else None

        found = server.wait_for(dataset, "the dataset is scanned")
        self.assertEqual({reject.reason for reject in found.report.rejects}, {"outside_root"}, found)
        self.assertEqual([sample.file for sample in found.samples], ["a.png", "b.png"], found)

    def test_an_upload_beyond_the_free_disk_is_refused(self):
        self.server.terminate()
        self.server.wait()
        self.server.options = ("--threads", "1", "--max-upload-bytes", "1024GiB", "--min-free-disk", "1024GiB")
        self.server.start()
        status, body, _ = self.ask(self.server.http_address, "POST", "/datasets/uploads", headers={"Upload-Length": str(1000 << 30)})
        self.assertEqual(status, 507, body)
        self.assertIn(b"min_free_disk", body)

    def test_empty_uploads_do_not_lock_others_out(self):
        for _ in range(80):
            status, body, _ = self.ask(self.server.http_address, "POST", "/datasets/uploads", headers={"Upload-Length": "1000"})
            self.assertEqual(status, 201, body)


class Data(Network):
    def setUp(self):
        self.server = server.Server("--starter", "--threads", "1")
        self.addCleanup(self.server.close)

    def artifacts(self):
        root = self.server.path("data/artifacts")
        return {os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names}

    def test_a_start_without_the_database_is_refused_and_changes_nothing(self):
        self.server.terminate()
        self.server.wait()
        before = self.artifacts()
        self.assertTrue(before)
        database, aside = self.server.path("data/visage.db"), self.server.path("aside.db")
        os.rename(database, aside)
        with self.assertRaisesRegex(AssertionError, "is missing, although .* has data of an earlier database"):
            self.server.start()
        self.assertEqual(self.artifacts(), before)
        os.rename(aside, database)
        self.server.start()
        versions = self.server.client.models.ListModelVersions(api.model.ListModelVersionsRequest()).versions
        self.assertEqual(list(versions[0].aliases), ["live"])

    def test_files_that_the_database_does_not_know_are_kept(self):
        self.server.terminate()
        self.server.wait()
        digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        unknown = self.server.path("data/artifacts/sha256/ba/" + digest)
        os.makedirs(os.path.dirname(unknown), exist_ok=True)
        with open(unknown, "wb") as file:
            file.write(b"abc")
        self.server.start()
        self.assertFalse(os.path.exists(unknown))
        (start,) = os.listdir(self.server.path("data/quarantine"))
        with open(self.server.path("data/quarantine/{}/artifacts/{}".format(start, digest)), "rb") as file:
            self.assertEqual(file.read(), b"abc")
        self.assertIn("quarantine", self.server.log())

    def test_a_changed_manifest_is_not_served(self):
        self.server.terminate()
        self.server.wait()
        changed = 0
        for path in self.artifacts():
            with open(path, "rb") as file:
                data = file.read()
            new, count = re.subn(rb'("offset":\s*)0(\.0)', rb"\g<1>9\g<2>", data, count=1)
            if len(data) < MIB and count:
                os.chmod(path, 0o600)
                with open(path, "wb") as file:
                    file.write(new)
                changed += 1
        self.assertEqual(changed, 1)
        self.server.options = ("--threads", "1")
        self.server.start()
        status, _, body = self.server.fetch("/readyz")
        self.assertEqual(status, 503, body)
        self.assertIn("damaged", server.wait_for(lambda: "damaged" in self.server.fetch("/readyz")[2] and self.server.fetch("/readyz")[2], "the model failed to load"))


if __name__ == "__main__":
    unittest.main()
