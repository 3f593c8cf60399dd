"""Identities and roles: tokens, users, JSON Web Tokens, sessions, the audit log."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import tempfile
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2

import api
import server

ROLES = ("metrics", "viewer", "predictor", "trainer", "deployer", "admin")
DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def new_token(running, name, *options):
    done = subprocess.run([server.binary(), "token", "new", name, "--data-dir", running.path("data"), *options], env=server.environment(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=True)
    return done.stdout.strip()


def bearer(token):
    return (("authorization", "Bearer " + token),) if token else ()


def ask(address, method, path, body=None, headers=None):
    """Status, body and headers of a request."""
    connection = http.client.HTTPConnection(address, timeout=api.DEADLINE_SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


class Authentication(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--auth", "tokens", "--starter")
        cls.addClassCleanup(cls.server.close)
        cls.first_log = cls.server.log()
        cls.tokens = {role: new_token(cls.server, role, "--role", role) for role in ROLES[:-1]}
        cls.tokens["admin"] = cls.change("new", "admin", "--role", "admin")
        # The last change may have been read in two parts.
        server.wait_for(lambda: ask(cls.server.http_address, "GET", "/endpoints", headers={"Authorization": "Bearer " + cls.tokens["admin"]})[0] == 200,
                        "the administrator's token is known", 60)

    @classmethod
    def change(cls, *arguments, data=b""):
        """Runs `visage token`, and waits until the server has read the file again."""
        read = cls.server.log().count("read the token file again")
        done = subprocess.run([server.binary(), "token", *arguments, "--data-dir", cls.server.path("data")], env=server.environment(), input=data,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        server.wait_for(lambda: cls.server.log().count("read the token file again") > read, "the server has read the token file again", 60)
        return done.stdout.decode().strip()

    def refused(self, call, *arguments, **options):
        """The error of a call that must fail."""
        with self.assertRaises(grpc.RpcError) as raised:
            call(*arguments, **options)
        return raised.exception

    def code(self, call, message, token=None):
        try:
            response = call(message, metadata=bearer(token))
            if hasattr(response, "cancel"):
                for _ in response:
                    break
                response.cancel()
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()

    def test_first_start_names_the_command_and_refuses_all_without_a_token(self):
        self.assertIn("visage token new admin --role admin", self.first_log)
        client = self.server.client
        refused = self.refused(client.system.GetServerInfo, api.system.GetServerInfoRequest())
        self.assertEqual(refused.code(), grpc.StatusCode.UNAUTHENTICATED)
        self.assertIn("authorization: Bearer", refused.details())
        for token, text in (("vsg_nonsense", "typing error"), (self.tokens["admin"][:-1] + "0", "typing error")):
            refused = self.refused(client.system.GetServerInfo, api.system.GetServerInfoRequest(), metadata=bearer(token))
            self.assertEqual(refused.code(), grpc.StatusCode.UNAUTHENTICATED)
        for page, expected in (("/livez", 200), ("/readyz", 200), ("/v2/health/ready", 200), ("/metrics", 401), ("/v2", 401), ("/endpoints", 401)):
            status, body, headers = ask(self.server.http_address, "GET", page)
            self.assertEqual(status, expected, page)
            if status == 401:
                self.assertEqual(headers["www-authenticate"], "Bearer")
                self.assertIn("error", json.loads(body))

    def test_readiness_has_details_for_the_role_metrics_only(self):
        status, body, _ = ask(self.server.http_address, "GET", "/readyz")
        self.assertEqual((status, json.loads(body)), (200, {"ready": True}))
        status, body, _ = ask(self.server.http_address, "GET", "/readyz", headers={"Authorization": "Bearer " + self.tokens["metrics"]})
        self.assertIn("components", json.loads(body))

    def test_each_role_may_call_its_methods_only(self):
        client = self.server.client
        with open(os.path.join(api.REPOSITORY, "tests", "fixtures", "imaging", "alpha.png"), "rb") as file:
            face = file.read()
        calls = [
            # (call, message, roles that may do it); the messages name what does not exist.
            (client.trainings.ListTrainings, api.training.ListTrainingsRequest(), {"viewer", "trainer", "deployer", "admin"}),
            (client.predictions.Predict, api.prediction.PredictRequest(images=[face]), {"predictor", "trainer", "deployer", "admin"}),
            (client.models.ListModelVersions, api.model.ListModelVersionsRequest(), {"viewer", "predictor", "trainer", "deployer", "admin"}),
            (client.trainings.CancelTraining, api.training.CancelTrainingRequest(name="trainings/none"), {"trainer", "admin"}),
            (client.trainings.DeleteTraining, api.training.DeleteTrainingRequest(name="trainings/none"), {"admin"}),
            (client.models.SetAlias, api.model.SetAliasRequest(name="models/age/versions/99", alias="live"), {"deployer", "admin"}),
            (client.models.DeleteModelVersion, api.model.DeleteModelVersionRequest(name="models/age/versions/99"), {"admin"}),
            (client.datasets.RegisterDataset, api.dataset.RegisterDatasetRequest(dataset_id="x", path="/nowhere"), {"admin"}),
            (client.datasets.DeleteDataset, api.dataset.DeleteDatasetRequest(name="datasets/none"), {"admin"}),
            (client.system.SetLogLevel, api.system.SetLogLevelRequest(directives="[[["), {"admin"}),
            (client.system.GetLogLevel, api.system.GetLogLevelRequest(), {"viewer", "trainer", "deployer", "admin"}),
        ]
        for call, message, allowed in calls:
            for role in ROLES:
                code = self.code(call, message, self.tokens[role])
                self.assertEqual(code not in DENIED, role in allowed, "{} as {}: {}".format(type(message).__name__, role, code))
        status, _, _ = ask(self.server.http_address, "GET", "/metrics", headers={"Authorization": "Bearer " + self.tokens["metrics"]})
        self.assertEqual(status, 200)
        status, _, _ = ask(self.server.http_address, "GET", "/metrics", headers={"Authorization": "Bearer " + self.tokens["trainer"]})
        self.assertEqual(status, 403)

    def test_promotion_and_paths_need_further_roles(self):
        spec = api.training.TrainingSpec(dataset=api.training.DatasetSpec(name="datasets/none"))
        start = self.server.client.trainings.StartTraining
        self.assertEqual(self.code(start, api.training.StartTrainingRequest(spec=spec, validate_only=True), self.tokens["trainer"]),
                         grpc.StatusCode.INVALID_ARGUMENT)
        spec.promote = api.training.PROMOTE_ALWAYS
        refused = self.refused(start, api.training.StartTrainingRequest(spec=spec), metadata=bearer(self.tokens["trainer"]))
        self.assertEqual(refused.code(), grpc.StatusCode.PERMISSION_DENIED)
        self.assertIn("role deployer", refused.details())
        both = self.change("new", "release", "--role", "trainer,deployer")
        self.assertEqual(self.code(start, api.training.StartTrainingRequest(spec=spec), both), grpc.StatusCode.INVALID_ARGUMENT)
        for spec in (api.training.TrainingSpec(dataset=api.training.DatasetSpec(path="/etc")),
                     api.training.TrainingSpec(dataset=api.training.DatasetSpec(name="datasets/none"), init=api.training.InitSpec(path="/etc/passwd"))):
            refused = self.refused(start, api.training.StartTrainingRequest(spec=spec), metadata=bearer(both))
            self.assertEqual(refused.code(), grpc.StatusCode.PERMISSION_DENIED)
            self.assertIn("role admin", refused.details())

    def test_revoked_token_ends_its_streams(self):
        token = self.change("new", "short", "--role", "viewer")
        client = self.server.client
        watching = client.health.Watch(health_pb2.HealthCheckRequest(), metadata=bearer(token))
        next(watching)
        started = time.monotonic()
        self.change("revoke", "short")
        ended = self.refused(lambda: [None for _ in watching])
        self.assertEqual(ended.code(), grpc.StatusCode.UNAUTHENTICATED)
        self.assertLess(time.monotonic() - started, 60)
        self.assertEqual(self.code(client.system.GetServerInfo, api.system.GetServerInfoRequest(), token), grpc.StatusCode.UNAUTHENTICATED)

    def test_expired_token_is_refused_and_its_streams_end(self):
        # Long enough to be read by the server.
        token = self.change("new", "brief", "--role", "viewer", "--expires", "20s")
        health = health_pb2.HealthCheckRequest()
        watching = self.server.client.health.Watch(health, metadata=bearer(token))
        ended = self.refused(lambda: [None for _ in watching])
        self.assertEqual(ended.code(), grpc.StatusCode.UNAUTHENTICATED)
        self.assertIn("expired", ended.details())
        self.assertEqual(self.code(self.server.client.system.GetServerInfo, api.system.GetServerInfoRequest(), token), grpc.StatusCode.UNAUTHENTICATED)

    def test_login_of_a_user_and_of_a_token(self):
        self.change("user", "ada", "--role", "viewer", data=b"correct horse battery\n")
        address = self.server.http_address

        def log_in(**fields):
            return ask(address, "POST", "/login", json.dumps(fields), {"Content-Type": "application/json"})

        for fields in ({"name": "ada", "password": "wrong horse battery"}, {"name": "eve", "password": "x" * 1000}, {"token": "vsg_x"}):
            status, body, headers = log_in(**fields)
            self.assertEqual(status, 401, fields)
            self.assertNotIn("set-cookie", headers)
        for fields, name, roles in (({"name": "ada", "password": "correct horse battery"}, "ada", ["viewer"]),
                                    ({"token": self.tokens["metrics"]}, "metrics", ["metrics"])):
            status, _, headers = log_in(**fields)
            self.assertEqual(status, 204)
            cookie, attributes = headers["set-cookie"].split(";", 1)
            self.assertIn("HttpOnly", attributes)
            self.assertIn("SameSite=Strict", attributes)
            status, body, _ = ask(address, "GET", "/session", headers={"Cookie": cookie})
            self.assertEqual((status, json.loads(body)), (200, {"authentication": True, "name": name, "roles": roles}))
            self.assertEqual(ask(address, "GET", "/endpoints", headers={"Cookie": cookie})[0], 200)
            # A page of another site cannot use the session, even if the browser sent the cookie.
            status, _, _ = ask(address, "POST", "/logout", headers={"Cookie": cookie, "Origin": "http://evil.example"})
            self.assertEqual(status, 403)
            self.assertEqual(ask(address, "POST", "/logout", headers={"Cookie": cookie})[0], 204)
            self.assertEqual(ask(address, "GET", "/session", headers={"Cookie": cookie})[0], 401)
        self.assertEqual(ask(address, "POST", "/login", "{", {"Content-Type": "application/json"})[0], 400)
        self.assertEqual(ask(address, "POST", "/login", "x" * 100_000)[0], 413)

    def test_audit_log_has_changes_and_refused_calls_and_no_secret(self):
        client = self.server.client
        self.code(client.models.SetAlias, api.model.SetAliasRequest(name="models/age/versions/1", alias="audited"), self.tokens["deployer"])
        self.code(client.models.SetAlias, api.model.SetAliasRequest(name="models/age/versions/1", alias="refused"), self.tokens["viewer"])

        def entries():
            with open(self.server.path("data/audit.jsonl"), encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            return [line for line in lines if line.get("call") == "visage.v1.ModelService/SetAlias"]

        server.wait_for(lambda: any(entry["outcome"] == "PermissionDenied" for entry in entries()), "the entries are written")
        done = [entry for entry in entries() if entry.get("request", {}).get("alias") == "audited"][0]
        self.assertEqual((done["identity"], done["outcome"], done["address"]), ("deployer", "Ok", "127.0.0.1"))
        refused = [entry for entry in entries() if entry["outcome"] == "PermissionDenied" and entry["identity"] == "viewer"]
        self.assertTrue(refused)
        with open(self.server.path("data/audit.jsonl"), encoding="utf-8") as file:
            everything = file.read() + self.server.log()
        for token in self.tokens.values():
            self.assertNotIn(token, everything)
        self.assertEqual(os.stat(self.server.path("data/audit.jsonl")).st_mode & 0o777, 0o600)

    def test_logins_and_logouts_are_in_the_audit_log(self):
        self.change("user", "grace", "--role", "viewer", data=b"staple of the horse\n")
        address = self.server.http_address

        def log_in(password):
            return ask(address, "POST", "/login", json.dumps({"name": "grace", "password": password}))

        self.assertEqual(log_in("guess")[0], 401)
        cookie = log_in("staple of the horse")[2]["set-cookie"].split(";")[0]
        self.assertEqual(ask(address, "POST", "/logout", headers={"Cookie": cookie})[0], 204)

        def entries():
            with open(self.server.path("data/audit.jsonl"), encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            return [(line["call"], line["outcome"]) for line in lines if line["identity"] == "grace" or line["outcome"] == "401"]

        server.wait_for(lambda: ("POST /logout", "204") in entries(), "the logout is recorded")
        self.assertIn(("POST /login", "401"), entries())
        self.assertIn(("POST /login", "204"), entries())

    def test_grpc_methods_refuse_the_content_types_of_forms(self):
        path = "/visage.v1.SystemService/GetServerInfo"
        for address in (self.server.http_address, self.server.grpc_address):
            for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
                headers = {"Authorization": "Bearer " + self.tokens["admin"]}
                headers.update({"Content-Type": content_type} if content_type else {})
                status, body, _ = ask(address, "POST", path, b"\0\0\0\0\0", headers)
                self.assertEqual(status, 415, (address, content_type))
                self.assertIn(b"application/grpc", body)
        self.assertEqual(os.stat(self.server.path("data/tokens.toml")).st_mode & 0o777, 0o600)


class AllowedOrigins(unittest.TestCase):
    def test_page_of_an_allowed_origin_needs_a_token_and_cannot_use_the_session(self):
        origin = "https://app.example.org"
        running = server.Server("--auth", "tokens", "--cors-origins", origin)
        self.addCleanup(running.close)
        token = new_token(running, "ci", "--role", "viewer")

        def status(**headers):
            return ask(running.http_address, "GET", "/endpoints", headers=headers)[0]

        server.wait_for(lambda: status(Authorization="Bearer " + token) == 200, "the token is known", 60)
        _, _, headers = ask(running.http_address, "POST", "/login", json.dumps({"token": token}))
        cookie = headers["set-cookie"].split(";")[0]
        self.assertEqual(status(Cookie=cookie), 200)
        self.assertEqual(status(Cookie=cookie, Origin="http://" + running.http_address), 200)
        self.assertEqual(status(Cookie=cookie, Origin=origin), 401)
        self.assertEqual(status(Authorization="Bearer " + token, Origin=origin), 200)


class FailedAttempts(unittest.TestCase):
    def test_many_failures_of_an_address_are_refused_early_but_a_valid_token_is_not(self):
        running = server.Server("--auth", "tokens")
        self.addCleanup(running.close)
        token = new_token(running, "ci", "--role", "viewer")

        def status(text):
            return ask(running.http_address, "GET", "/endpoints", headers={"Authorization": "Bearer " + text})[0]

        server.wait_for(lambda: status(token) == 200, "the token is known", 60)
        self.assertIn(429, [status("vsg_wrong") for _ in range(12)])
        self.assertEqual(status(token), 200)
        statuses = [ask(running.http_address, "POST", "/login", json.dumps({"name": "ada", "password": "guess"}))[0] for _ in range(12)]
        self.assertEqual((statuses[0], statuses[-1]), (401, 429))


class WithoutAuthentication(unittest.TestCase):
    def test_session_says_that_there_is_none(self):
        running = server.Server()
        self.addCleanup(running.close)
        status, body, _ = ask(running.http_address, "GET", "/session")
        self.assertEqual((status, json.loads(body)), (200, {"authentication": False}))
        self.assertFalse(os.path.exists(running.path("data/audit.jsonl")))


def encoded(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An OpenID Connect issuer whose keys and signatures are made by openssl."""

    def __init__(self, directory):
        self.directory = directory
        self.keys = {}

    def openssl(self, *arguments, data=None):
        return subprocess.run(["openssl", *arguments], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout

    def add(self, algorithm, kid):
        path = os.path.join(self.directory, kid + ".pem")
        options = {"RS256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ES256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "EdDSA": ["ED25519"]}
        self.openssl("genpkey", "-algorithm", options[algorithm][0], *options[algorithm][1:], "-out", path)
        der = self.openssl("pkey", "-in", path, "-pubout", "-outform", "DER")
        if algorithm == "RS256":
            modulus = self.openssl("rsa", "-in", path, "-noout", "-modulus").decode().strip().split("=")[1]
            jwk = {"kty": "RSA", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"}
        elif algorithm == "ES256":
            jwk = {"kty": "EC", "crv": "P-256", "x": encoded(der[-64:-32]), "y": encoded(der[-32:])}
        else:
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": encoded(der[-32:])}
        self.keys[kid] = (algorithm, path, {**jwk, "kid": kid, "use": "sig", "alg": algorithm})

    def write(self, path):
        temporary = path + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"keys": [jwk for _, _, jwk in self.keys.values()]}, file)
        os.rename(temporary, path)

    def sign(self, kid, claims, header=None):
        algorithm, path, _ = self.keys[kid]
        message = encoded({"alg": algorithm, "typ": "JWT", "kid": kid, **(header or {})}) + "." + encoded(claims)
        if algorithm == "EdDSA":
            data = os.path.join(self.directory, "message")
            with open(data, "w", encoding="ascii") as file:
                file.write(message)
            signature = self.openssl("pkeyutl", "-sign", "-inkey", path, "-rawin", "-in", data)
        else:
            signature = self.openssl("dgst", "-sha256", "-sign", path, data=message.encode())
        if algorithm == "ES256":
            signature = self.raw(signature)
        return message + "." + encoded(signature)

    @staticmethod
    def raw(der):
        """The two numbers of a DER signature, 32 bytes each."""
        numbers, at = [], 2
        for _ in range(2):
            length = der[at + 1]
            numbers.append(der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
            at += 2 + length
        return b"".join(numbers)


class OpenIdConnect(unittest.TestCase):
    def test_tokens_of_the_issuer_are_accepted_with_their_roles(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        issuer = Issuer(directory.name)
        for algorithm in ("RS256", "ES256", "EdDSA"):
            issuer.add(algorithm, algorithm.lower())
        other = Issuer(directory.name)
        other.add("RS256", "foreign")
        keys = os.path.join(directory.name, "keys.json")
        issuer.write(keys)
        running = server.Server("--auth", "oidc", "--oidc-issuer", "https://login.example.org", "--oidc-audience", "visage", "--oidc-jwks", keys,
                                "--oidc-roles-claim", "realm_access.roles")
        self.addCleanup(running.close)
        now = int(time.time())
        claims = {"iss": "https://login.example.org", "aud": ["visage", "other"], "sub": "1234", "preferred_username": "ada", "exp": now + 3600,
                  "realm_access": {"roles": ["viewer", "unknown"]}}

        # The second if there were many failures of this address.
        refused = (401, 429)

        def status(token, path="/v2"):
            return ask(running.http_address, "GET", path, headers={"Authorization": "Bearer " + token})[0]

        server.wait_for(lambda: status(issuer.sign("rs256", claims)) == 200, "the keys are read", 30)
        for kid in ("rs256", "es256", "eddsa"):
            token = issuer.sign(kid, claims)
            self.assertEqual(status(token), 200, kid)
            # The role viewer does not suffice.
            self.assertEqual(status(token, "/metrics"), 403, kid)
            signature = token.split(".")[2]
            changed = issuer.sign(kid, {**claims, "realm_access": {"roles": ["admin"]}}).rsplit(".", 1)[0] + "." + signature
            self.assertIn(status(changed), refused, kid)
        wrong = {
            "issuer": {**claims, "iss": "https://evil.example"},
            "audience": {**claims, "aud": "other"},
            "expired": {**claims, "exp": now - 120},
            "not yet": {**claims, "nbf": now + 3600},
            "no end": {name: value for name, value in claims.items() if name != "exp"},
            "no audience": {name: value for name, value in claims.items() if name != "aud"},
            "no subject": {name: value for name, value in claims.items() if name not in ("sub",)},
        }
        for name, content in wrong.items():
            self.assertIn(status(issuer.sign("es256", content)), refused, name)
        # Another key under a known id, no signature, and the public key as an HMAC secret.
        other.keys["rs256"] = other.keys["foreign"]
        self.assertIn(status(other.sign("rs256", claims, {"kid": "rs256"})), refused)
        unsigned = encoded({"alg": "none", "kid": "rs256"}) + "." + encoded(claims) + "."
        self.assertIn(status(unsigned), refused)
        message = encoded({"alg": "HS256", "kid": "rs256"}) + "." + encoded(claims)
        secret = issuer.openssl("pkey", "-in", issuer.keys["rs256"][1], "-pubout")
        forged = message + "." + encoded(hmac.new(secret, message.encode(), hashlib.sha256).digest())
        self.assertIn(status(forged), refused)
        # A new key of the issuer is read when a token names it.
        issuer.add("ES256", "next")
        issuer.write(keys)
        token = issuer.sign("next", claims)
        server.wait_for(lambda: status(token) == 200, "the new key is read", 60)
        # A token without roles has an identity, and no rights.
        self.assertEqual(status(issuer.sign("es256", {**claims, "realm_access": {}}), "/endpoints"), 200)
        self.assertEqual(status(issuer.sign("es256", {**claims, "realm_access": {}})), 403)


if __name__ == "__main__":
    unittest.main()
