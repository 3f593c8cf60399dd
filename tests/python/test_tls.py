"""TLS on both ports, client certificates, Unix sockets, and the clients' side of them."""

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

import grpc

import api
import package
import server

STALL_SECONDS = 2


class Authority:
    """A certificate authority in a temporary directory, which `close` removes."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="visage-tls-")
        self.issued = 0
        self.certificate = self.path("ca.pem")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test authority",
                     "-days", "2", "-keyout", self.path("ca.key"), "-out", self.certificate)

    def close(self):
        shutil.rmtree(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.directory)
        if done.returncode != 0:
            raise AssertionError("openssl {} failed: {}".format(" ".join(arguments), done.stdout.decode()))

    def issue(self, names="IP:127.0.0.1,DNS:localhost", usage="serverAuth", days=2, subject="/CN=visage"):
        """The paths of a new certificate and its key."""
        self.issued += 1
        cert, key, request, extensions = (self.path("{}.{}".format(self.issued, end)) for end in ("pem", "key", "csr", "ext"))
        with open(extensions, "w", encoding="utf-8") as file:
            file.write("basicConstraints=critical,CA:FALSE\nextendedKeyUsage={}\nsubjectAltName={}\n".format(usage, names))
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.path("ca.key"), "-CAcreateserial",
                     "-days", str(days), "-extfile", extensions, "-out", cert)
        return cert, key

    def context(self):
        return ssl.create_default_context(cafile=self.certificate)


def visage(*arguments, **variables):
    """Exit code and all output of a command."""
    done = subprocess.run([server.binary(), *arguments], env={**server.environment(), **variables}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=api.DEADLINE_SECONDS)
    return done.returncode, done.stdout


class TlsTest(unittest.TestCase):
    """Tests with one server with TLS and a live version."""

    @classmethod
    def setUpClass(cls):
        cls.authority = Authority()
        cls.addClassCleanup(cls.authority.close)
        cls.cert, cls.key = cls.authority.issue()
        cls.server = server.Server("--starter", "--tls-cert", cls.cert, "--tls-key", cls.key, "--stall-timeout", "{}s".format(STALL_SECONDS),
                                   *cls.options())
        cls.addClassCleanup(cls.server.close)

    @classmethod
    def options(cls):
        return ()

    def https(self, path, context=None):
        """Status, headers and body of a page over TLS."""
        host, port = self.server.http_address.rsplit(":", 1)
        connection = http.client.HTTPSConnection(host, int(port), timeout=api.DEADLINE_SECONDS, context=context or self.authority.context())
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()

    def url(self):
        return "https://" + self.server.grpc_address


class Ports(TlsTest):
    def test_http_port_has_tls_1_2_and_1_3_and_asks_browsers_to_stay_with_it(self):
        for version, accepted in ((ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
            context = self.authority.context()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with self.subTest(version):
                if not accepted:
                    self.assertRaises(ssl.SSLError, self.https, "/livez", context)
                    continue
                status, headers, _ = self.https("/livez", context)
                self.assertEqual((status, headers["strict-transport-security"]), (200, "max-age=31536000"))

    def test_ports_negotiate_their_protocols(self):
        for address, offered, expected in ((self.server.grpc_address, ["http/1.1", "h2"], "h2"), (self.server.grpc_address, ["http/1.1"], "http/1.1"),
                                           (self.server.http_address, ["h2", "http/1.1"], "http/1.1")):
            context = self.authority.context()
            context.set_alpn_protocols(offered)
            host, port = address.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
                self.assertEqual(secure.selected_alpn_protocol(), expected)

    def test_plain_text_is_closed_and_the_ready_file_names_the_scheme(self):
        with open(self.server.path("ready"), encoding="utf-8") as file:
            self.assertIn('"scheme":"https"', file.read())
        for address in (self.server.grpc_address, self.server.http_address):
            host, port = address.rsplit(":", 1)
            with socket.create_connection((host, int(port)), timeout=api.DEADLINE_SECONDS) as plain:
                plain.sendall(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
                self.assertNotIn(b"HTTP/", plain.recv(1000))

    def test_expiry_is_a_metric(self):
        _, _, page = self.https("/metrics")
        line = next(line for line in page.splitlines() if line.startswith("visage_tls_certificate_expiry_timestamp_seconds"))
        done = subprocess.run(["openssl", "x509", "-in", self.cert, "-noout", "-enddate"], stdout=subprocess.PIPE, universal_newlines=True, check=True)
        expected = ssl.cert_time_to_seconds(done.stdout.strip().split("=", 1)[1])
        self.assertEqual(float(line.split(" ")[1]), expected)

    def test_silent_half_and_broken_handshakes_end_and_do_not_disturb_others(self):
        host, port = self.server.grpc_address.rsplit(":", 1)
        hello = ssl.MemoryBIO()
        client = self.authority.context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            client.do_handshake()
        first = hello.read()
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(socket.create_connection((host, int(port)), timeout=api.DEADLINE_SECONDS)) for _ in range(500)]
            for number, connection in enumerate(opened):
                connection.sendall([b"\x16", first[:40], first, os.urandom(200)][number % 4])
            code, text = visage("--server", self.url(), "--ca", self.authority.certificate, "info")
            self.assertEqual(code, 0, text)
            for connection in opened:
                # Until the server closes the connection.
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(10_000):
                        pass
        self.assertNotIn("panicked", self.server.log())


class CommandLine(TlsTest):
    def test_authority_names_and_plain_text_are_explained(self):
        ca = self.authority.certificate
        other = Authority()
        self.addCleanup(other.close)
        port = self.server.grpc_address.rsplit(":", 1)[1]
        named = server.Server("--tls-cert", self.authority.issue("DNS:visage.example.org")[0], "--tls-key", self.authority.path("2.key"))
        self.addCleanup(named.close)
        plain = server.Server()
        self.addCleanup(plain.close)
        self.assertEqual(visage("--server", self.url(), "--ca", ca, "info")[0], 0)
        self.assertEqual(visage("info", VISAGE_SERVER="https://localhost:" + port, VISAGE_CA=ca)[0], 0)
        for arguments, expected in (
                (("--server", self.url()), "name the authority's certificate with --ca FILE"),
                (("--server", self.url(), "--ca", other.certificate), "name the authority's certificate with --ca FILE"),
                (("--server", "https://" + named.grpc_address, "--ca", ca), "certificate is not for the name"),
                (("--server", self.server.grpc_address), "use https:// instead"),
                (("--server", "https://" + plain.grpc_address, "--ca", ca), "does not speak TLS"),
                (("--server", self.url(), "--ca", self.key), "--ca must be a PEM file with at least one certificate")):
            with self.subTest(arguments):
                code, text = visage(*arguments, "info")
                self.assertIn(code, (2, 3), text)
                self.assertIn(expected, text)

    def test_token_is_not_sent_in_plain_text_or_shown(self):
        token = self.authority.path("token")
        with open(token, "w", encoding="utf-8") as file:
            file.write("vsg_hidden\n")
        os.chmod(token, 0o644)
        code, text = visage("--server", "192.0.2.1:50051", "--token-file", token, "info")
        self.assertEqual(code, 2)
        self.assertIn("must not be sent to http://192.0.2.1:50051 in plain text", text)
        self.assertIn("chmod 600", text)
        # A server without authentication ignores it.
        code, text = visage("--server", self.url(), "--ca", self.authority.certificate, "info", VISAGE_TOKEN="vsg_hidden")
        self.assertEqual(code, 0, text)
        self.assertNotIn("hidden", text + self.server.log())

    def test_uploads_and_named_servers(self):
        home = self.authority.path("home")
        faces = server.draw_faces(self.authority.path("faces"), count=12, seed=1)
        code, text = visage("--ca", self.authority.certificate, "servers", "add", "prod", self.url(), HOME=home)
        self.assertEqual(code, 0, text)
        self.assertIn("* ", visage("servers", "ls", HOME=home)[1])
        code, text = visage("dataset", "push", faces, "--id", "faces", HOME=home)
        self.assertEqual(code, 0, text)
        code, text = visage("--server", "prod", "dataset", "ls", HOME=home)
        self.assertEqual(code, 0, text)
        self.assertIn("faces", text)
        self.assertEqual(visage("servers", "rm", "prod", HOME=home)[0], 0)
        self.assertNotIn("https", visage("servers", HOME=home)[1])


class ClientCertificates(TlsTest):
    @classmethod
    def options(cls):
        cls.clients = Authority()
        cls.addClassCleanup(cls.clients.close)
        return ("--tls-client-ca", cls.clients.certificate)

    def test_only_certificates_of_the_authority_are_accepted(self):
        base = ("--server", self.url(), "--ca", self.authority.certificate)
        cert, key = self.clients.issue(usage="clientAuth")
        code, text = visage(*base, "--cert", cert, "--key", key, "info")
        self.assertEqual(code, 0, text)
        code, text = visage(*base, "info")
        self.assertEqual(code, 3, text)
        # TLS 1.3 reports the refusal after the handshake, and the client may see the end of the connection first.
        self.assertRegex(text, "requires a client certificate[;,] name it with --cert and --key")
        other = Authority()
        self.addCleanup(other.close)
        for pair in (other.issue(usage="clientAuth"), self.clients.issue(usage="clientAuth", days=-1)):
            code, text = visage(*base, "--cert", pair[0], "--key", pair[1], "info")
            self.assertEqual(code, 3, text)
            self.assertRegex(text, "the server refused the client certificate|requires a client certificate")
        code, text = visage(*base, "--cert", cert, "info")
        self.assertEqual(code, 2)
        self.assertIn("`cert` requires `key`", text)


class Reload(TlsTest):
    def test_certificate_is_replaced_under_load_without_a_failed_call(self):
        stopped, failures, counts = threading.Event(), [], [0, 0]

        def load(index, call):
            while not stopped.is_set():
                try:
                    call()
                    counts[index] += 1
                except Exception as error:  # pylint: disable=broad-except
                    failures.append(repr(error))

        with open(self.authority.certificate, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        with grpc.secure_channel(self.server.grpc_address, credentials) as channel:
            info = channel.unary_unary("/visage.v1.SystemService/GetServerInfo")
            threads = [threading.Thread(target=load, args=(0, lambda: self.https("/livez"))) for _ in range(3)]
            threads += [threading.Thread(target=load, args=(1, lambda: info(b"", timeout=api.DEADLINE_SECONDS))) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(5):
                    self.replace(*self.authority.issue())
                self.refuse()
                before = list(counts)
                server.wait_for(lambda: all(now > old for now, old in zip(counts, before)), "calls succeed after the reloads")
            finally:
                stopped.set()
                for thread in threads:
                    thread.join()
        self.assertEqual(failures, [])

    def served(self):
        host, port = self.server.http_address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as plain, self.authority.context().wrap_socket(plain, server_hostname=host) as secure:
            return secure.getpeercert(binary_form=True)

    def replace(self, cert, key):
        shutil.copyfile(cert, self.cert)
        shutil.copyfile(key, self.key)
        with open(cert, encoding="utf-8") as file:
            expected = ssl.PEM_cert_to_DER_cert(file.read())
        self.server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: self.served() == expected, "the new certificate is served")

    def refuse(self):
        """A key of another certificate changes nothing."""
        served = self.served()
        shutil.copyfile(self.authority.issue()[1], self.key)
        self.server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "refused the new TLS files" in self.server.log(), "the pair is refused")
        self.assertEqual(self.served(), served)


class Start(unittest.TestCase):
    def test_wrong_files_are_errors_with_a_remedy(self):
        authority = Authority()
        self.addCleanup(authority.close)
        (cert, _), (_, other) = authority.issue(), authority.issue()
        for key, expected in ((other, "does not belong to tls_cert"), (authority.path("missing"), "failed to read tls_key")):
            code, text = visage("serve", "--data-dir", authority.path("data"), "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                                "--tls-cert", cert, "--tls-key", key)
            self.assertEqual(code, 1, text)
            self.assertIn(expected, text)
            self.assertIn(key, text)


class UnixSockets(unittest.TestCase):
    def test_sockets_serve_both_ports_and_end_with_the_server(self):
        directory = tempfile.mkdtemp(prefix="visage-unix-")
        self.addCleanup(shutil.rmtree, directory)
        paths = [os.path.join(directory, name) for name in ("grpc.sock", "http.sock")]
        # As a killed server leaves it behind.
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(paths[0])
        running = server.Server("--grpc-socket", paths[0], "--http-socket", paths[1])
        try:
            self.assertEqual([stat.S_IMODE(os.stat(path).st_mode) for path in paths], [0o660, 0o660])
            code, text = visage("--server", "unix:" + paths[0], "info")
            self.assertEqual(code, 0, text)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(paths[1])
                connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                self.assertIn(b"200 OK", connection.recv(1000))
            faces = server.draw_faces(os.path.join(directory, "faces"), count=2, seed=1)
            code, text = visage("--server", "unix:" + paths[0], "dataset", "push", faces, "--id", "faces")
            self.assertEqual(code, 2)
            self.assertIn("set --http http://127.0.0.1:" + running.http_address.rsplit(":", 1)[1], text)
        finally:
            running.close()
        self.assertEqual([os.path.exists(path) for path in paths], [False, False])


@unittest.skipIf(sys.version_info < (3, 10), "the package needs Python 3.10 or newer")
class Package(TlsTest):
    def test_tls_token_and_uploads(self):
        package.site()
        from visage_client import Client, Unavailable
        ca = self.authority.certificate
        faces = package.faces()
        for target, options in ((self.url(), {"ca": ca, "token": "vsg_a"}), (self.server.grpc_address, {"ca": ca})):
            with Client(target, **options) as client:
                self.assertTrue(client.info().version)
        with Client(self.url(), ca=ca, token="vsg_a") as client:
            self.assertEqual(client.push_dataset("faces", faces).state, "READY")
        with Client(self.url()) as client, self.assertRaisesRegex(Unavailable, "pass the certificate of its authority as ca"):
            client.info()

    def test_token_is_sent_to_loopback_and_never_in_plain_text_elsewhere(self):
        package.site()
        from visage_client import AsyncClient, Client
        from visage_client.access import Access
        for target in ("visage.example.org:50051", "http://10.0.0.1:50051", "dns:///10.0.0.1:50051"):
            with self.assertRaisesRegex(ValueError, "in plain text"):
                Client(target, token="vsg_hidden")
        access = Access.of("localhost:50051", "vsg_hidden", None, None, None, None)
        self.assertEqual(access.plain_metadata(), (("authorization", "Bearer vsg_hidden"),))
        self.assertEqual(access.headers("http://127.0.0.1:1"), {"authorization": "Bearer vsg_hidden"})
        self.assertRaisesRegex(ValueError, "in plain text", access.headers, "http://example.org:1")
        self.assertNotIn("hidden", repr(access))
        plain = server.Server()
        self.addCleanup(plain.close)
        with Client(plain.grpc_address, token="vsg_a") as client:
            self.assertTrue(client.info().version)

        async def version():
            async with AsyncClient(plain.grpc_address, token="vsg_a") as client:
                return (await client.info()).version

        self.assertTrue(asyncio.run(version()))


if __name__ == "__main__":
    unittest.main()
