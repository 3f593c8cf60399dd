"""Operations files in `deploy/`: a real Prometheus scrapes a server, loads the rules and evaluates all queries of alerts and dashboard.

Each query must parse, use only metrics, labels and label values that the server exports or a rule records, return the labels of its legend, and have a
result. The other files are checked without a container engine.
"""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

import grpc
from PIL import Image

try:
    import promql_parser as promql
    import yaml
except ImportError as error:
    without_packages = without_prometheus = "a package is not installed: {}".format(error)
else:
    without_packages = None
    absent = [program for program in ("prometheus", "promtool") if not shutil.which(program)]
    without_prometheus = "{} is not installed (Debian's package `prometheus` has it)".format(absent[0]) if absent else None

import api
import server
from api import model, training

DEPLOY = os.path.join(api.REPOSITORY, "deploy")
# Metrics of other exporters; if these are not installed, their queries are only parsed.
EXPORTERS = {"node": "prometheus-node-exporter", "visage-ready": "prometheus-blackbox-exporter"}
# Metrics that the server of the test lacks: it has no TLS, and the first verification of its files may not have ended.
ABSENT = {"visage_tls_certificate_expiry_timestamp_seconds", "visage_artifacts_verified_timestamp_seconds"}
FOREIGN = {"node_": "node", "probe_": "visage-ready"}


def deployed(name):
    with open(os.path.join(DEPLOY, name), encoding="utf-8") as file:
        return file.read()


def panels():
    """Panels of the dashboard with queries."""
    return [panel for panel in json.loads(deployed("grafana/dashboard.json"))["panels"] if panel["type"] != "row"]


def rules(name):
    return [rule for group in yaml.safe_load(deployed("prometheus/" + name))["groups"] for rule in group["rules"]]


def free_port():
    """A free port. Prometheus and the exporters do not report a port that they choose."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(*command):
    """Runs a program; returns exit code and output."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                          timeout=server.DEADLINE_SECONDS)
    return done.returncode, done.stdout


class Prometheus:
    """A Prometheus with the committed configuration, except addresses and intervals, and the installed exporters."""

    def __init__(self, target):
        self.directory = tempfile.mkdtemp(prefix="visage-prometheus-")
        self.processes = []
        try:
            self.start(target)
        except BaseException:
            self.close()
            raise

    def start(self, target):
        addresses = {job: "127.0.0.1:{}".format(free_port()) for job in EXPORTERS}
        self.exporters = [job for job, program in EXPORTERS.items() if shutil.which(program)]
        # The options of the composition, except the exclusion of a container's file systems, which
        # would exclude all of this machine.
        composed = yaml.safe_load(deployed("docker/compose.yml"))["services"]["node-exporter"]["command"]
        options = {"node": [option for option in composed if "exclude" not in option],
                   "visage-ready": ["--config.file=" + os.path.join(DEPLOY, "prometheus/blackbox.yml")]}
        for job in self.exporters:
            self.spawn(EXPORTERS[job], "--web.listen-address=" + addresses[job], *options[job])
        config = deployed("prometheus/prometheus.yml")
        replacements = {
            '"visage:50052"': '"{}"'.format(target), '"node-exporter:9100"': '"{}"'.format(addresses["node"]),
            "blackbox-exporter:9115": addresses["visage-ready"],
            "scrape_interval: 15s": "scrape_interval: 2s", "scrape_timeout: 10s": "scrape_timeout: 2s",
            "evaluation_interval: 15s": "evaluation_interval: 1s",
            "- rules.yml": "- " + os.path.join(DEPLOY, "prometheus/rules.yml"), "- alerts.yml": "- " + os.path.join(DEPLOY, "prometheus/alerts.yml")}
        for old, new in replacements.items():
            if old not in config:
                raise AssertionError("{} is not in prometheus.yml any more, so this test cannot replace it".format(old))
            config = config.replace(old, new)
        with open(os.path.join(self.directory, "prometheus.yml"), "w", encoding="utf-8") as file:
            file.write(config)
        self.address = "127.0.0.1:{}".format(free_port())
        self.spawn("prometheus", "--config.file=" + os.path.join(self.directory, "prometheus.yml"),
                   "--storage.tsdb.path=" + os.path.join(self.directory, "tsdb"),
                   "--web.listen-address=" + self.address)
        server.wait_for(self.is_ready, "Prometheus is ready")

    def spawn(self, program, *options):
        with open(os.path.join(self.directory, program + ".log"), "wb") as log:
            self.processes.append(subprocess.Popen([program, *options], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory)

    def is_ready(self):
        if self.processes[-1].poll() is not None:
            with open(os.path.join(self.directory, "prometheus.log"), encoding="utf-8") as file:
                raise AssertionError("Prometheus ended with {}; its log says:\n{}".format(self.processes[-1].returncode, file.read()))
        try:
            return self.get("/-/ready")[0] == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        connection = http.client.HTTPConnection(self.address, timeout=server.DEADLINE_SECONDS)
        try:
            connection.request("GET", path + "?" + urllib.parse.urlencode(parameters))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def api(self, path, **parameters):
        answer = json.loads(self.get("/api/v1/" + path, **parameters)[1])
        if answer["status"] != "success":
            raise AssertionError("Prometheus refuses {}: {}".format(parameters, answer["error"]))
        return answer["data"]

    def query(self, expression):
        """The samples of a result as pairs of labels and value; a scalar has no labels."""
        data = self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]


def children(node):
    """The parts of an expression."""
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
    return [part for part in parts + list(getattr(node, "args", [])) if isinstance(part, promql.Expr)]


def selectors(node):
    """All selectors in an expression."""
    if isinstance(node, promql.VectorSelector):
        return [node]
    return [found for child in children(node) for found in selectors(child)]


def groupings(node):
    """Grouping and join labels of an expression: pairs of the labels and the part that must have them."""
    found = [pair for child in children(node) for pair in groupings(child)]
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr) and modifier:
        found.append((modifier.labels, node.expr))
    elif isinstance(node, promql.BinaryExpr) and modifier and modifier.matching:
        found += [(modifier.matching.labels, side) for side in (node.lhs, node.rhs)]
    return found


@unittest.skipIf(without_prometheus, without_prometheus)
class QueriesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Four large images fill the queue.
        cls.server = server.Server("--starter", "--threads", "1", "--max-queued-images", "4", "--max-images-per-request", "4", "--max-batch", "4")
        cls.addClassCleanup(cls.server.close)
        cls.prometheus = Prometheus(cls.server.http_address)
        cls.addClassCleanup(cls.prometheus.close)
        # An increase is visible only if the value before it was scraped.
        server.wait_for(lambda: cls.prometheus.query("visage_build_info"), "Prometheus has read the server")
        cls.drive()
        cls.tables = cls.label_values()
        fired = 'ALERTS{alertname="VisageTrainingFailed", alertstate="firing", stop_reason="non_finite_loss"}'
        server.wait_for(lambda: cls.prometheus.query(fired), "the alert of the failed training fires")
        last = 'visage_trainings_finished_total{stop_reason="max_epochs"} == 1'
        server.wait_for(lambda: cls.prometheus.query(last), "Prometheus has read the end of the last training")

    @classmethod
    def drive(cls):
        """Produces every kind of series."""
        client = cls.server.client
        faces = server.draw_faces(cls.server.path("faces"), count=60, seed=5, size=64)
        with open(os.path.join(faces, sorted(os.listdir(faces))[0]), "rb") as file:
            face = file.read()
        with open(os.path.join(faces, "30_broken.jpg"), "wb") as file:
            file.write(b"no image")
        for count in (1, 2, 4):
            client.predict(*count * [face])
        client.predict(face, detect_faces=True)
        cls.post_face(face)
        cls.refused(grpc.StatusCode.INVALID_ARGUMENT, face, b"no image")
        cls.refused(grpc.StatusCode.INVALID_ARGUMENT, *5 * [face])
        cls.overload()
        parent, live = "models/age", "models/age/versions/1"
        client.models.DeleteAlias(model.DeleteAliasRequest(parent=parent, alias="live"))
        cls.refused(grpc.StatusCode.FAILED_PRECONDITION, face)
        client.models.SetAlias(model.SetAliasRequest(name=live, alias="live"))
        spec = training.TrainingSpec(dataset=training.DatasetSpec(path=faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM),
                                     batch_size=8, input_size=32, promote=training.PROMOTE_NEVER, max_epochs=2)
        hopeless = training.TrainingSpec(optimizer=training.OptimizerSpec(learning_rate=1e30), max_epochs=50)
        failing, killed = training.TrainingSpec(), training.TrainingSpec()
        failing.MergeFrom(spec)
        failing.MergeFrom(hopeless)
        cls.ends_as("NON_FINITE_LOSS", client.start(failing).name)
        killed.MergeFrom(spec)
        killed.max_epochs = 1000
        name = client.start(killed).name
        cls.kill_worker(name)
        server.wait_for(lambda: cls.server.metrics()["visage_training_worker_restarts_total"] == 1, "the training is started again")
        client.trainings.StopTraining(training.StopTrainingRequest(name=name))
        cls.ends_as("USER_STOP", name)
        cls.ends_as("MAX_EPOCHS", client.start(spec).name)

    @classmethod
    def post_face(cls, face):
        body = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(face).decode()]}]})
        for path, text, status in (("/v2/models/age/infer", body, 200), ("/v2/models/other/infer", body, 400), ("/v2/health/live", None, 200)):
            connection = http.client.HTTPConnection(cls.server.http_address, timeout=server.DEADLINE_SECONDS)
            try:
                connection.request("POST" if text else "GET", path, text)
                response = connection.getresponse()
                response.read()
            finally:
                connection.close()
            if (response.status == 200) != (status == 200):
                raise AssertionError("{} answers {}".format(path, response.status))

    @classmethod
    def refused(cls, code, *images, **fields):
        try:
            cls.server.client.predict(*images, **fields)
        except grpc.RpcError as error:
            if error.code() != code:
                raise
        else:
            raise AssertionError("no {}".format(code))

    @classmethod
    def overload(cls):
        """Fills the queue until a call is refused, one is cancelled and one expires."""
        image = io.BytesIO()
        Image.new("RGB", (4000, 4000), (90, 60, 30)).save(image, "PNG")
        images = 4 * [image.getvalue()]
        cls.refused(grpc.StatusCode.DEADLINE_EXCEEDED, *images, timeout=0.05)
        predict = cls.server.client.predictions.Predict
        in_flight = 'visage_rpc_in_flight{method="visage.v1.PredictionService/Predict"}'
        server.wait_for(lambda: cls.server.metrics()["visage_predict_queue_depth"] == 0, "the late call has left the queue")
        left = predict.future(api.prediction.PredictRequest(images=images))
        server.wait_for(lambda: cls.server.metrics()["visage_predict_queue_depth"] > 0, "the call is in the queue")
        left.cancel()
        server.wait_for(lambda: cls.server.metrics()[in_flight] == 0, "the call that gave up is over")

        def is_refused():
            calls = [predict.future(api.prediction.PredictRequest(images=images)) for _ in range(3)]
            return grpc.StatusCode.RESOURCE_EXHAUSTED in [call.code() for call in calls]

        server.wait_for(is_refused, "a call is refused because the queue is full")

    @classmethod
    def kill_worker(cls, name):
        """Kills the process of a training after its first epoch."""
        stream = cls.server.client.stream(name)
        for response in stream:
            if response.event.HasField("epoch_completed"):
                break
        stream.cancel()
        tasks = "/proc/{}/task".format(cls.server.process.pid)
        # Children of any thread of the server.
        for thread in os.listdir(tasks):
            with open(os.path.join(tasks, thread, "children"), encoding="ascii") as file:
                for worker in file.read().split():
                    os.kill(int(worker), signal.SIGKILL)

    @classmethod
    def ends_as(cls, reason, name):
        cls.server.client.events(name, follow=True)
        ended = cls.server.client.get(name)
        if training.StopReason.Name(ended.stop_reason) != "STOP_REASON_" + reason:
            raise AssertionError("{} should have ended as {}: {}".format(name, reason, ended))

    @classmethod
    def label_values(cls):
        """Declared label values by metric and label, from `visage config --metrics`."""
        values = {}
        for line in server.run("config", "--metrics").splitlines()[2:]:
            _, name, _, labels, _, _ = (cell.strip() for cell in line.split("|"))
            for label, listed in re.findall(r"`(\w+)`: ([^;]*)", labels):
                values[name.strip("`"), label] = set(listed.split(", "))
        return values

    # Queries.

    def expressions(self):
        """All queries, as triples of location, query as Prometheus receives it, and dashboard target if any."""
        for name in ("rules.yml", "alerts.yml"):
            for rule in rules(name):
                yield "{} {}".format(name, rule.get("alert") or rule["record"]), rule["expr"], None
        dashboard = json.loads(deployed("grafana/dashboard.json"))
        for panel in panels():
            for target in panel["targets"]:
                yield "panel `{}`".format(panel["title"]), filled(target["expr"]), target
        for annotation in dashboard["annotations"]["list"]:
            yield "annotation `{}`".format(annotation["name"]), filled(annotation["expr"]), None
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                yield "variable `{}`".format(variable["name"]), "count by ({}) ({})".format(label, metric), None

    def is_watched(self, expression):
        """True if the exporters of a query's metrics are installed."""
        jobs = {job for prefix, job in FOREIGN.items() for found in selectors(promql.parse(expression)) if found.name.startswith(prefix)}
        return jobs <= set(self.prometheus.exporters)

    def series(self, name):
        return self.prometheus.api("series", **{"match[]": name})

    def faults(self, expression):
        """Problems of a query."""
        self.prometheus.query(expression)
        parsed = promql.parse(expression)
        if not self.is_watched(expression):
            return []
        found = []
        for selector in selectors(parsed):
            series = self.series(selector.name)
            if not series and selector.name not in ABSENT:
                found.append("there is no metric {}".format(selector.name))
            for matcher in selector.matchers.matchers if series else []:
                found += self.faults_of_matcher(selector.name, matcher, series)
        for labels, part in groupings(parsed):
            known = {label for selector in selectors(part) for one in self.series(selector.name) for label in one}
            found += ["nothing in `{}` has the label {}".format(expression, label) for label in labels if label not in known]
        return found

    def faults_of_matcher(self, name, matcher, series):
        # ALERTS has the labels of alerts that have fired, which may not be all.
        if name == "ALERTS" and matcher.name in ("alertname", "alertstate"):
            return []
        has = {one.get(matcher.name) for one in series} - {None}
        if not has:
            return ["{} has no label {}".format(name, matcher.name)]
        if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
            values = [matcher.value]
        elif re.fullmatch(r"[\w./|]+", matcher.value):
            values = matcher.value.split("|")
        else:
            return []
        # Negated values of other exporters are exclusions.
        if matcher.op in (promql.MatchOp.NotEqual, promql.MatchOp.NotRe) and name.startswith(tuple(FOREIGN)):
            return []
        has |= self.tables.get((re.sub(r"_(bucket|sum|count)$", "", name), matcher.name), set())
        return ["{} has no {} `{}`".format(name, matcher.name, value) for value in values if value not in has]

    # Tests.

    def test_every_query_asks_for_what_exists(self):
        for place, expression, _ in self.expressions():
            with self.subTest(place, expression=expression):
                self.assertEqual(self.faults(expression), [])

    def test_a_query_of_what_does_not_exist_is_noticed(self):
        wrong = {
            'visage_predict_faces_total': "there is no metric visage_predict_faces_total",
            'rate(visage_predict_images_total{result="ok"}[1m])': "visage_predict_images_total has no label result",
            'visage_predict_images_total{outcome=~"ok|lost"}': "visage_predict_images_total has no outcome `lost`",
            'up{job="visages"}': "up has no job `visages`",
            'sum by (instance, outcome) (rate(visage_predict_rejections_total[1m]))': "has the label outcome",
            'visage_training_epoch / on (model) visage_training_max_epochs': "has the label model",
            'histogram_quantile(0.9, sum by (le) (rate(visage_predict_decode_seconds_buckets[1m])))':
                "there is no metric visage_predict_decode_seconds_buckets",
        }
        for expression, said in wrong.items():
            with self.subTest(expression):
                self.assertIn(said, "\n".join(self.faults(expression)))
        with self.assertRaisesRegex(AssertionError, "Prometheus refuses"):
            self.faults("sum by (")

    def test_every_panel_and_every_recording_rule_has_data(self):
        recorded = [rule["record"] for rule in rules("rules.yml")]
        asked = [("rule " + name, name, None) for name in recorded]
        asked += [(place, expression, target) for place, expression, target in self.expressions() if target and self.is_watched(expression)]
        asked = [one for one in asked if not any(name in one[1] for name in ABSENT)]
        # In a container there may be no disk.
        if "node" in self.prometheus.exporters:
            server.wait_for(lambda: self.prometheus.query("node_filesystem_avail_bytes"), "the node exporter is read", seconds=30)
            if not self.prometheus.query('node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|squashfs|overlay"}'):
                asked = [one for one in asked if "node_filesystem" not in one[1]]
        self.assertGreater(len(asked), 60)
        for place, expression, target in asked:
            with self.subTest(place, expression=expression):
                samples = server.wait_for(lambda: self.prometheus.query(expression), "{} has data".format(place), seconds=30)
                legend = re.findall(r"{{(\w+)}}", target["legendFormat"]) if target else []
                for labels, _ in samples:
                    self.assertLessEqual(set(legend), set(labels), "the legend names a label that the answer has not")

    def test_what_was_driven_is_what_prometheus_read(self):
        # Caused by `drive`: a request to a missing model and one without a live version, three
        # trainings, a killed process.
        exact = {
            'visage_predict_rejections_total{reason="no_model"}': 2,
            'visage_trainings_finished_total{stop_reason="non_finite_loss"}': 1,
            'visage_trainings_finished_total{stop_reason="max_epochs"}': 1,
            'visage_trainings_finished_total{stop_reason="user_stop"}': 1,
            'visage_training_worker_restarts_total': 1,
            'visage_training_max_epochs': 2,
            'instance:visage_training_progress:ratio': 1,
            'count(visage_live_model_info)': 1,
        }
        for expression, value in exact.items():
            with self.subTest(expression):
                server.wait_for(lambda: [sample[1] for sample in self.prometheus.query(expression)] == [value], "{} is {}, not {}".format(
                    expression, value, self.prometheus.query(expression)), seconds=30)
        for outcome in ("ok", "invalid_image", "overloaded", "expired", "cancelled"):
            self.assertTrue(self.prometheus.query('visage_predict_images_total{{outcome="{}"}} > 0'.format(outcome)), outcome)
        self.assertTrue(self.prometheus.query('visage_training_skipped_images_total{reason="undecodable"} > 0'))
        self.assertTrue(self.prometheus.query("visage_predict_batch_size_count > 0"))
        self.assertEqual([value for _, value in self.prometheus.query('up{job="visage"}')], [1.0])

    def test_the_exporters_say_what_the_alerts_need(self):
        for job in self.prometheus.exporters:
            server.wait_for(lambda: self.prometheus.query('up{{job="{}"}} == 1'.format(job)), "Prometheus reads job {}".format(job), seconds=30)
        if "visage-ready" not in self.prometheus.exporters:
            self.skipTest("the blackbox exporter is not installed (Debian's package `prometheus-blackbox-exporter` has it)")
        server.wait_for(lambda: self.prometheus.query('probe_success{job="visage-ready"} == 1 and on (instance) up{job="visage"} == 1'),
                        "the server is probed as ready, under the name that it is read under", seconds=30)

    def test_the_failed_training_alarms_and_nothing_else_does_without_a_cause(self):
        firing = {labels["alertname"] for labels, _ in self.prometheus.query('ALERTS{alertstate="firing"}')}
        self.assertIn("VisageTrainingFailed", firing)
        # Alerts that `drive` may cause if it takes long enough, and those of the machine that runs
        # the test.
        caused = {"VisageTrainingFailed", "VisageCallsWithoutModel", "VisageOverloaded", "VisagePredictionsFail"}
        caused |= {"VisageSlowPredictions", "VisageDiskNearlyFull", "VisageDiskFull", "VisageHostMemoryLow"}
        self.assertLessEqual(firing, caused)


def filled(expression):
    """A query of the dashboard with Grafana's variables replaced."""
    return expression.replace("$__rate_interval", "10m").replace("$instance", ".*")


@unittest.skipIf(without_prometheus, without_prometheus)
class PromtoolTest(unittest.TestCase):
    def test_configuration_and_rules_are_valid(self):
        code, said = run("promtool", "check", "config", os.path.join(DEPLOY, "prometheus/prometheus.yml"))
        self.assertEqual(code, 0, said)
        self.assertIn("{} rules found".format(len(rules("alerts.yml"))), said)

    def test_rules_and_alerts_do_what_was_calculated(self):
        code, said = run("promtool", "test", "rules", os.path.join(DEPLOY, "prometheus/tests.yml"))
        self.assertEqual(code, 0, said)

    def test_every_alert_is_seen_to_fire_in_the_unit_tests(self):
        tests = deployed("prometheus/tests.yml")
        for rule in rules("alerts.yml"):
            name = rule["alert"]
            seen = [
                'alertname="{}", alertstate="firing"'.format(name),
                "'{{alertname=\"{}\"}}', value: ".format(name),
            ]
            written_out = re.search(r"alertname: {}\n +eval_time: \w+\n +exp_alerts:\n".format(name), tests)
            self.assertTrue(written_out or any(text in tests for text in seen), name)

    def test_every_rule_is_calculated_in_the_unit_tests(self):
        tests = deployed("prometheus/tests.yml")
        for rule in rules("rules.yml"):
            self.assertRegex(tests, r"expr: \S*" + rule["record"])


@unittest.skipIf(without_packages, without_packages)
class FilesTest(unittest.TestCase):
    def test_every_alert_says_what_it_is_and_what_to_do(self):
        sections = re.findall(r"^## (\w+)$", deployed("RUNBOOK.md"), re.MULTILINE)
        names = [rule["alert"] for rule in rules("alerts.yml")]
        self.assertEqual(sections, names, "the sections of deploy/RUNBOOK.md are the alerts, in their order")
        for rule in rules("alerts.yml"):
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook"})
                self.assertIn("$value", rule["annotations"]["description"])
                self.assertTrue(rule["annotations"]["runbook"].endswith(" deploy/RUNBOOK.md#" + rule["alert"].lower()))
                self.assertNotIn("\n", rule["annotations"]["runbook"])

    def test_commands_of_the_runbook_exist(self):
        commands = set(re.findall(r"visage ((?:trainings|models|dataset) (?:alias )?[a-z]+|watch|info|config|evaluate)",
                                  deployed("RUNBOOK.md") + deployed("prometheus/alerts.yml")))
        self.assertGreater(len(commands), 5)
        for command in sorted(commands):
            with self.subTest(command):
                server.run(*command.split(), "--help")

    def test_dashboard_is_what_its_script_writes(self):
        code, written = run(sys.executable, os.path.join(DEPLOY, "grafana/dashboard.py"))
        self.assertEqual(code, 0, written)
        self.assertEqual(deployed("grafana/dashboard.json"), written, "run deploy/grafana/dashboard.py > deploy/grafana/dashboard.json")

    def test_dashboard_is_complete_and_its_panels_lie_apart(self):
        dashboard = json.loads(deployed("grafana/dashboard.json"))
        self.assertEqual((dashboard["uid"], dashboard["schemaVersion"]), ("visage", 39))
        everything = dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in everything}), len(everything))
        self.assertEqual(len({panel["title"] for panel in everything}), len(everything))
        cells = set()
        for panel in everything:
            place = panel["gridPos"]
            taken = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertTrue(all(0 <= x < 24 for x, _ in taken), panel["title"])
            cells |= taken
        for panel in panels():
            self.assertTrue(panel["description"] and panel["targets"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"])
            sources = [panel["datasource"]] + [target["datasource"] for target in panel["targets"]]
            self.assertTrue(all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources), panel["title"])

    def test_every_metric_of_the_server_is_shown_or_left_out_on_purpose(self):
        shown = "".join(target["expr"] for panel in panels() for target in panel["targets"]) + deployed("prometheus/rules.yml")
        names = re.findall(r"^\| `(\w+)`", server.run("config", "--metrics"), re.MULTILINE)
        # The first is absent unless a limit is set; the others are for the search of a cause.
        left_out = {"process_virtual_memory_max_bytes", "visage_connections", "visage_connections_closed_total"}
        self.assertEqual({name for name in names if name not in shown}, left_out)

    def test_grafana_is_told_where_compose_puts_things(self):
        compose = yaml.safe_load(deployed("docker/compose.yml"))["services"]
        source, = yaml.safe_load(deployed("grafana/provisioning/datasources/prometheus.yml"))["datasources"]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "http://prometheus:9090"))
        self.assertEqual(source["jsonData"]["timeInterval"], yaml.safe_load(deployed("prometheus/prometheus.yml"))["global"]["scrape_interval"])
        provider, = yaml.safe_load(deployed("grafana/provisioning/dashboards/visage.yml"))["providers"]
        self.assertIn("../grafana/dashboard.json:{}/dashboard.json:ro".format(provider["options"]["path"]), compose["grafana"]["volumes"])

    def test_compose_names_files_and_services_that_are_there(self):
        compose = yaml.safe_load(deployed("docker/compose.yml"))
        services, directory = compose["services"], os.path.join(DEPLOY, "docker")
        for name, service in services.items():
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue(os.path.exists(os.path.join(directory, source)), source)
                elif not source.startswith("${"):
                    self.assertIn(source, compose["volumes"])
            for other, wanted in service.get("depends_on", {}).items():
                self.assertIn(other, services, name)
                tested = "healthcheck" in services[other] or "build" in services[other]
                self.assertEqual(wanted["condition"], "service_healthy" if tested else "service_started")
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), "a port without a password is open to others: " + port)
            self.assertEqual((service["read_only"], service["cap_drop"], service["security_opt"]), (True, ["ALL"], ["no-new-privileges:true"]), name)
            self.assertIn("pids_limit", service, name)
            # Docker does not publish ports of internal networks.
            is_outside = any(not (compose["networks"][network] or {}).get("internal") for network in service["networks"])
            self.assertEqual(is_outside, "ports" in service, name)
        self.assertFalse(set(services["grafana"]["networks"]) & set(services["visage"]["networks"]))
        self.assertTrue(os.path.exists(os.path.join(directory, services["visage"]["build"]["context"], services["visage"]["build"]["dockerfile"])))
        # The node exporter excludes all but the data directory.
        watched, = (option for option in services["node-exporter"]["command"] if "exclude" in option)
        left_out = re.compile(watched.split("=", 1)[1].replace("$$", "$"))
        self.assertTrue(all(left_out.search(path) for path in ("/", "/dev/shm", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys/firmware")))
        data_directory = re.search(r"VISAGE_DATA_DIR=(\S+)", deployed("docker/Dockerfile")).group(1)
        self.assertFalse(left_out.search(data_directory))
        for service in ("visage", "node-exporter"):
            self.assertTrue(any(volume.startswith("visage-data:" + data_directory) for volume in services[service]["volumes"]), service)
        targets = re.findall(r"([\w-]+):\d+", "\n".join(re.findall(r'targets: .*|replacement: [^$]*:\d+', deployed("prometheus/prometheus.yml"))))
        self.assertEqual(set(targets), {"visage", "node-exporter", "blackbox-exporter"})
        self.assertLessEqual(set(targets), set(services))

    def test_settings_of_an_exposed_service_are_valid(self):
        head, unit = deployed("systemd/visage.service").split("[Unit]")
        variables = dict(re.findall(r"(VISAGE_\w+)=(\S+)", unit))
        shown = dict(re.findall(r"(VISAGE_\w+)=(\S+)", head.split("[Service]")[1]))
        self.assertEqual(shown["VISAGE_AUTH"], "tokens")
        names = re.findall(r"LoadCredential=([\w.]+):", head)
        self.assertEqual({shown[name] for name in ("VISAGE_TOKENS_FILE", "VISAGE_TLS_CERT", "VISAGE_TLS_KEY")}, {"%d/" + name for name in names})
        done = subprocess.run([server.binary(), "config"], env={**server.environment(), **variables, **shown}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True, timeout=server.DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_settings_of_image_and_service_are_the_servers(self):
        image = dict(re.findall(r"(VISAGE_\w+)=(\S+)", re.sub("(?m)^#.*", "", deployed("docker/Dockerfile"))))
        unit = dict(re.findall(r"(VISAGE_\w+)=(\S+)", re.sub("(?m)^#.*", "", deployed("systemd/visage.service"))))
        # All listeners of a container are reachable by others, so the image alone does not start.
        done = subprocess.run([server.binary(), "config"], env={**server.environment(), **image}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=server.DEADLINE_SECONDS)
        self.assertEqual((done.returncode, "--insecure-no-auth" in done.stderr), (2, True), done.stderr)
        with open(os.path.join(api.REPOSITORY, "Cargo.toml"), encoding="utf-8") as file:
            version = re.search(r'(?m)^version = "([^"]+)"', file.read()).group(1)
        self.assertIn("\nARG VERSION={}\n".format(version), deployed("docker/Dockerfile"))
        image.update(yaml.safe_load(deployed("docker/compose.yml"))["services"]["visage"]["environment"])
        for variables in (image, unit):
            self.assertGreaterEqual(len(variables), 3)
            done = subprocess.run([server.binary(), "config", "--json"], env={**server.environment(), **variables}, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, universal_newlines=True, timeout=server.DEADLINE_SECONDS)
            self.assertEqual(done.returncode, 0, done.stderr)
            settings = json.loads(done.stdout)
            read = {setting["source"] for setting in settings.values()}
            self.assertLessEqual(set(variables), read)
        # Both wait longer than the server's grace periods for calls and for trainings together.
        grace = int(re.fullmatch(r"(\d+)s", settings["shutdown_grace"]["value"]).group(1))
        waits = [re.search(r"TimeoutStopSec=(\d+)s", deployed("systemd/visage.service")),
                 re.search(r"stop_grace_period: (\d+)s", deployed("docker/compose.yml"))]
        self.assertTrue(all(int(wait.group(1)) > 2 * grace for wait in waits))
        # The queue alert fires at 80 % of the server's limit.
        threshold, = (re.search(r"> (\d+)", rule["expr"]).group(1) for rule in rules("alerts.yml") if rule["alert"] == "VisageQueueNearlyFull")
        self.assertAlmostEqual(int(threshold) / settings["max_queued_images"]["value"], 0.8, places=2)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_understands_the_unit(self):
        unit = deployed("systemd/visage.service").replace("/usr/local/bin/visage", server.binary())
        # The comment shows the additions for a server that other machines use.
        exposed = "\n".join(re.findall(r"(?m)^#   (.*)$", unit.split("[Unit]")[0].split("[Service]")[1]))
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "visage.service")
            for text in (unit + "\n[Service]\n" + exposed, unit):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                self.assertEqual(run("systemd-analyze", "verify", path), (0, ""))
            # 1.5 of 10 at the time of writing; JIT compilers, /proc and the network are needed.
            code, said = run("systemd-analyze", "security", "--offline=true", "--threshold=16", "--no-pager", path)
        self.assertEqual(code, 0, said)

    def test_health_check_of_the_image_follows_the_server(self):
        command = json.loads(re.search(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", deployed("docker/Dockerfile")).group(1))
        self.assertIn("/50052 ", command[-1])
        running = server.Server("--threads", "1")
        try:
            check = [part.replace("/50052 ", "/{} ".format(running.http_address.split(":")[1])) for part in command]
            self.assertEqual(run(*check)[0], 0)
        finally:
            running.close()
        self.assertNotEqual(run(*check)[0], 0)
