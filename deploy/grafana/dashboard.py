#!/usr/bin/env python3
"""Generates the Grafana dashboard from the list of panels below: `deploy/grafana/dashboard.py > deploy/grafana/dashboard.json`.

The JSON is committed. A test compares it with this script, and evaluates every query in a Prometheus that has scraped a real server.
"""

import json
import sys

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
# Selector of every query of Visage's metrics; `$instance` is the server selected in the dashboard.
SERVER = 'job="visage", instance=~"$instance"'
PREDICTING = 'method=~"visage.v1.PredictionService/Predict|inference.GRPCInferenceService/ModelInfer"'
GREEN, YELLOW, RED = "green", "yellow", "red"
WIDTH = 24


def rate(by, metric, more=""):
    """Rate of a counter, summed by labels."""
    return "sum by ({}) (rate({}{{{}{}}}[$__rate_interval]))".format(by, metric, SERVER, more)


def quantile(share, metric):
    return "histogram_quantile({}, {})".format(share, rate("le", metric + "_bucket"))


def gauge(metric, more=""):
    return "{}{{{}{}}}".format(metric, SERVER, more)


def steps(*pairs):
    """Thresholds as pairs of value and colour; the first has no value."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in pairs]}


def panel(kind, title, description, unit, queries, width=8, height=8, defaults=None, options=None):
    """A panel. `queries` are pairs of an expression and its legend, followed by further fields of a target."""
    targets = []
    for position, (expression, legend, *more) in enumerate(queries):
        target = {"datasource": PROMETHEUS, "editorMode": "code", "expr": expression, "legendFormat": legend, "range": True,
                  "refId": chr(ord("A") + position)}
        for fields in more:
            target.update(fields)
        targets.append(target)
    settings = {"color": {"mode": "palette-classic"}, "thresholds": steps((None, GREEN)), "unit": unit}
    settings.update(defaults or {})
    return {"type": kind, "title": title, "description": description, "datasource": PROMETHEUS, "targets": targets,
            "fieldConfig": {"defaults": settings, "overrides": []}, "options": options or {}, "size": (width, height)}


def lines(title, description, unit, queries, stacked=False, limits=None, bars=False, width=8, **defaults):
    """A time series panel. `limits` are drawn as dashed lines."""
    custom = {"drawStyle": "bars" if bars else "line", "fillOpacity": 60 if bars else 30 if stacked else 8, "lineWidth": 1, "showPoints": "never",
              "spanNulls": False, "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
              "thresholdsStyle": {"mode": "dashed" if limits else "off"}}
    settings = {"custom": custom, "min": 0}
    if limits:
        settings["thresholds"] = limits
    settings.update(defaults)
    options = {"legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, unit, queries, width=width, defaults=settings, options=options)


def value(title, description, unit, expression, legend="", limits=None, name=False, width=4, **defaults):
    """A panel with the latest value or, with `name`, its legend."""
    settings = {"color": {"mode": "thresholds"}, "thresholds": limits or steps((None, GREEN))}
    settings.update(defaults)
    options = {"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "name" if name else "auto"}
    # An instant query, so that a series that has ended is not shown.
    return panel("stat", title, description, unit, [(expression, legend, {"instant": True, "range": False})], width=width, height=4,
                 defaults=settings, options=options)


def heatmap(title, description, unit, metric, width=8):
    """Distribution of a histogram over time."""
    query = ("sum by (le) (increase({}_bucket{{{}}}[$__rate_interval]))".format(metric, SERVER), "{{le}}", {"format": "heatmap"})
    options = {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}, "legend": {"show": True},
               "rowsFrame": {"layout": "auto"}, "tooltip": {"mode": "single", "yHistogram": False},
               "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit}}
    return panel("heatmap", title, description, "short", [query], width=width, options=options)


ROWS = [
    ("Now", [
        value("Servers", "Servers that Prometheus scrapes.", "short", 'sum(up{' + SERVER + '})', limits=steps((None, RED), (1, GREEN))),
        value("Live version", "Model version that predicts by default.", "short", gauge("visage_live_model_info"),
               "{{model}} {{version}}",
               name=True, noValue="none"),
        value("Images/s", "Predicted images per second, over 5 minutes.", "suffix: images/s",
               'sum(instance_outcome:visage_predict_images:rate5m{' + SERVER + ', outcome="ok"})', decimals=1),
        value("Without an age", "Share of valid images that failed, expired or were refused, over 5 minutes. Alert above 5 %.",
               "percentunit",
               gauge("instance:visage_predict_unserved:ratio_rate5m"), "{{instance}}", limits=steps((None, GREEN), (0.01, YELLOW), (0.05, RED)),
               decimals=1,
               noValue="0"),
        value("p99 of calls", "99th percentile of the latency of predictions, over 5 minutes. Alert above 1 s.", "s",
               "max(" + gauge("instance:visage_predict_call_seconds:p99_5m") + ")", limits=steps((None, GREEN), (0.5, YELLOW), (1, RED)),
               noValue="no calls"),
        value("Alerts", "Firing alerts; deploy/RUNBOOK.md has the remedies.", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)',
               limits=steps((None, GREEN), (1, RED))),
    ]),
    ("Serving", [
        lines("Images by outcome",
              "Images per second by outcome. overloaded and expired mean insufficient capacity, failed an internal error; invalid_image and "
              "cancelled are caused by clients.", "suffix: images/s",
              [(rate("outcome", "visage_predict_images_total"), "{{outcome}}")],
              stacked=True),
        lines("Latency of predictions",
              "From the request headers to the response, over 5 minutes. Requests with many images take longer. Alert above 1 s.", "s",
              [(gauge("instance:visage_predict_call_seconds:p50_5m"), "p50 {{protocol}}"),
               (gauge("instance:visage_predict_call_seconds:p95_5m"), "p95 {{protocol}}"),
               (gauge("instance:visage_predict_call_seconds:p99_5m"), "p99 {{protocol}}")], limits=steps((None, GREEN), (1, RED))),
        lines("Time by stage",
              "95th percentile of decoding one image, waiting for the engine, and one forward pass of a batch.",
              "s", [(quantile(0.95, "visage_predict_decode_seconds"), "decode"), (quantile(0.95, "visage_predict_detection_seconds"), "face detection"),
                    (quantile(0.95, "visage_predict_queue_seconds"), "wait"),
                    (quantile(0.95, "visage_predict_inference_seconds"), "forward pass")]),
        heatmap("Faces", "Detected faces per image, for requests with face detection.", "short", "visage_predict_faces"),
        heatmap("Batch sizes", "Images per forward pass; larger under load.", "short", "visage_predict_batch_size"),
        lines("Queue",
              "Admitted images without a response, and mean batch size. At max_queued_images, 256 by default, requests are refused; the lines are "
              "80 % and 100 % of 256.", "short",
              [(gauge("visage_predict_queue_depth"), "in flight {{instance}}"),
               (gauge("instance:visage_predict_batch_size:mean5m"), "mean batch {{instance}}")],
              limits=steps((None, GREEN), (205, YELLOW), (256, RED))),
        lines("Rejections by reason", "Rejected images per second.", "ops",
              [(rate("reason", "visage_predict_rejections_total"), "{{reason}}")]),
        lines("gRPC calls by method", "Completed calls per second; a stream counts when it ends. Methods without calls are omitted.", "reqps",
              [(rate("method", "visage_rpc_requests_total") + " > 0", "{{method}}")]),
        lines("Errors by code",
              "Calls per second with a code other than ok. internal, unknown and data_loss are internal errors.",
              "reqps", [(rate("code", "visage_rpc_requests_total", ', code!="ok"'), "gRPC {{code}}"),
                        (rate("code", "visage_http_requests_total", ', code!="ok"'), "HTTP {{code}}")]),
        lines("HTTP requests by route", "Completed requests under /v2 and /datasets per second. Routes without requests are omitted.", "reqps",
              [(rate("route", "visage_http_requests_total") + " > 0", "{{route}}")]),
        lines("gRPC calls in flight", "Active calls: predictions, and followers of trainings.", "short",
              [("sum(" + gauge("visage_rpc_in_flight", ", " + PREDICTING) + ")", "predictions"),
               ("sum(" + gauge("visage_rpc_in_flight", ', method="visage.v1.TrainingService/StreamEpochMetrics"') + ")", "StreamEpochMetrics")]),
        lines("Response cache", "Memory of the response cache; 0 while it is off.", "bytes",
              [(gauge("visage_response_cache_bytes"), "{{instance}}")]),
        lines("Internal errors", "Share of calls that ended as internal, unknown or data_loss, over 5 minutes. Alert above 1 %.",
              "percentunit",
              [(gauge("instance:visage_call_faults:ratio_rate5m"), "{{protocol}} {{instance}}")], limits=steps((None, GREEN), (0.01, RED)), width=12),
        lines("Response cache lookups", "Lookups per second; 0 while the cache is off.", "suffix: images/s",
              [(rate("result", "visage_response_cache_lookups_total"), "{{result}}")], stacked=True, width=12),
    ]),
    ("Trainings", [
        value("Running", "Running trainings.", "short", "sum(" + gauge("visage_trainings", ', state="running"') + ")"),
        value("Waiting", "Trainings waiting for a device.", "short", "sum(" + gauge("visage_training_queue_length") + ")",
               limits=steps((None, GREEN), (10, YELLOW), (80, RED))),
        value("Epoch", "Completed epochs of the running or last training.", "short", gauge("visage_training_epoch"), "{{instance}}"),
        value("of", "Maximum number of epochs.", "short", gauge("visage_training_max_epochs"), "{{instance}}"),
        value("Progress", "Share of completed epochs.", "percentunit", gauge("instance:visage_training_progress:ratio"), "{{instance}}",
               decimals=0,
               noValue="none"),
        value("Failed", "Stored trainings that ended with an error.", "short", "sum(" + gauge("visage_trainings", ', state="failed"') + ")",
               limits=steps((None, GREEN), (1, YELLOW))),
        lines("Loss",
              "Mean squared error of the last completed epoch in square years, whatever the loss function. A falling training loss with a rising "
              "validation loss indicates overfitting.", "short",
              [(gauge("visage_training_loss_square_years"), "{{split}} {{instance}}")]),
        lines("Error", "Validation error after the last completed epoch in years.", "suffix: years",
              [(gauge("visage_training_rmse_years"), "RMSE {{instance}}"), (gauge("visage_training_mae_years"), "MAE {{instance}}")]),
        lines("Learning rate", "Learning rate at the end of the last completed epoch.", "sci", [(gauge("visage_training_learning_rate"), "{{instance}}")]),
        lines("Speed", "Training images per second; 0 while none is running.", "suffix: images/s",
              [(gauge("visage_training_images_per_second"), "{{instance}}")]),
        lines("Time by phase", "Share of the training time by phase in the last hour. The counters change once per epoch.", "percentunit",
              [("avg by (phase) (" + gauge("instance_phase:visage_training_phase_seconds:ratio_rate1h") + ")", "{{phase}}")], stacked=True, max=1),
        lines("Waiting for data", "Share of the training time of the last epoch spent waiting for decoded images. Alert above 50 %.",
              "percentunit",
              [(gauge("visage_training_data_wait_ratio"), "{{instance}}")], limits=steps((None, GREEN), (0.5, RED)), max=1),
        lines("Trainings by state", "Stored trainings by state.", "short", [("sum by (state) (" + gauge("visage_trainings") + ")", "{{state}}")],
              stacked=True, decimals=0),
        lines("Ended and restarted",
              "Trainings that ended, by reason, and trainings that were queued again because their process died or the server stopped, in the "
              "last hour.", "short",
              [("sum by (stop_reason) (increase(visage_trainings_finished_total{" + SERVER + "}[1h])) > 0", "{{stop_reason}}"),
               ("sum(increase(visage_training_worker_restarts_total{" + SERVER + "}[1h]))", "restarted")], bars=True),
        lines("Skipped images", "Images that trainings skipped in the last hour, by reason; `visage dataset check` lists them.", "short",
              [("sum by (reason) (increase(visage_training_skipped_images_total{" + SERVER + "}[1h]))", "{{reason}}"),
               ("sum(increase(visage_training_images_total{" + SERVER + "}[1h]))", "trained on")]),
    ]),
    ("Models", [
        lines("Live versions",
              "1 for the live version of each model. The alias `live` was moved where one line ends and another starts.", "short",
              [(gauge("visage_live_model_info"), "{{model}} {{version}} {{instance}}")], decimals=0, max=1),
        lines("Registered versions", "Versions of all models.", "short", [(gauge("visage_model_versions"), "{{instance}}")], decimals=0),
        heatmap("Load time", "Time to read, verify and warm up a model.", "s", "visage_model_load_seconds"),
        value("Loads", "Models loaded in the last 24 hours.", "short", "sum(increase(visage_model_load_seconds_count{" + SERVER + "}[24h]))",
               decimals=0, width=6),
        value("Visage", "Version of the program.", "short", gauge("visage_build_info"), "Visage {{version}}, libtorch {{libtorch}} on {{device}}", name=True,
               width=18),
    ]),
    ("Process", [
        value("Uptime", "Time since the start of the server.", "s", "time() - " + gauge("process_start_time_seconds"), "{{instance}}"),
        value("Threads", "Threads of the server process.", "short", gauge("process_threads"), "{{instance}}"),
        value("Open files", "Share of file descriptors in use. Alert above 80 %.", "percentunit",
               gauge("instance:process_open_fds:ratio"), "{{instance}}",
               limits=steps((None, GREEN), (0.5, YELLOW), (0.8, RED)), decimals=1),
        value("Memory", "Resident memory of the server process. Alert above 4 GiB.", "bytes", gauge("process_resident_memory_bytes"), "{{instance}}",
               limits=steps((None, GREEN), (2 * 1024**3, YELLOW), (4 * 1024**3, RED))),
        value("Free disk", "Free share of the fullest monitored file system. Alert below 10 %.", "percentunit",
               'min(node_filesystem_avail_bytes{job="node", fstype!~"tmpfs|ramfs|squashfs|overlay"} / node_filesystem_size_bytes{job="node", '
               'fstype!~"tmpfs|ramfs|squashfs|overlay"})', limits=steps((None, RED), (0.1, YELLOW), (0.2, GREEN)), decimals=1, noValue="not monitored"),
        value("Free memory", "Available memory of the machine. Alert below 10 %.", "percentunit",
               'min(node_memory_MemAvailable_bytes{job="node"} / node_memory_MemTotal_bytes{job="node"})',
               limits=steps((None, RED), (0.1, YELLOW), (0.2, GREEN)),
               decimals=1, noValue="not monitored"),
        value("Free disk of the data directory", "Below `min_free_disk` uploads and new trainings are refused, and running trainings pause.", "bytes",
              gauge("visage_disk_free_bytes"), "{{instance}}", limits=steps((None, RED), (1024**3, YELLOW), (10 * 1024**3, GREEN)), width=6),
        value("Damaged files", "Files of versions and checkpoints that the verification in the background found damaged or missing. Alert above 0.", "short",
              gauge("visage_artifacts_damaged"), "{{instance}}", limits=steps((None, GREEN), (1, RED)), width=6),
        value("Last verification", "Time since all files of versions and checkpoints were verified.", "s",
              "time() - " + gauge("visage_artifacts_verified_timestamp_seconds"), "{{instance}}", width=6, noValue="not finished"),
        value("Certificate", "Time until the certificate of `tls_cert` ends. Alert below 7 days.", "s",
              gauge("visage_tls_certificate_expiry_timestamp_seconds") + " - time()", "{{instance}}",
              limits=steps((None, RED), (7 * 86400, YELLOW), (14 * 86400, GREEN)), width=6, noValue="no TLS"),
        lines("Processor", "Cores used by the server process, without training processes.", "short",
              [("rate(process_cpu_seconds_total{" + SERVER + "}[$__rate_interval])", "{{instance}}")]),
        lines("Memory over time", "Resident and virtual memory of the server process, without training processes.",
              "bytes",
              [(gauge("process_resident_memory_bytes"), "resident {{instance}}"), (gauge("process_virtual_memory_bytes"), "virtual {{instance}}")]),
        lines("File descriptors", "Open file descriptors and their limit.", "short",
              [(gauge("process_open_fds"), "open {{instance}}"), (gauge("process_max_fds"), "limit {{instance}}")]),
        lines("Traces", "Spans per second that the collector accepted, and dropped spans. 0 without `otlp_endpoint`.", "short",
              [(rate("instance", "visage_trace_spans_total"), "accepted {{instance}}"),
               (rate("reason", "visage_trace_spans_lost_total"), "dropped: {{reason}}")]),
    ]),
]


def placed():
    """Rows and panels with their positions."""
    panels, top, number = [], 0, 0
    for title, members in ROWS:
        number += 1
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}})
        top += 1
        left = line_height = 0
        for member in members:
            width, height = member.pop("size")
            if left + width > WIDTH:
                left, top = 0, top + line_height
                line_height = 0
            number += 1
            panels.append({"id": number, **member, "gridPos": {"h": height, "w": width, "x": left, "y": top}})
            left += width
            line_height = max(line_height, height)
        top += line_height
    return panels


def dashboard():
    return {
        "uid": "visage",
        "title": "Visage",
        "description": "A Visage server: predictions, trainings, models and resources.",
        "tags": ["visage"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [
            {"name": "Starts", "enable": True, "iconColor": "orange", "datasource": PROMETHEUS, "titleFormat": "started {{instance}}",
             "expr": "changes(process_start_time_seconds{" + SERVER + "}[2m]) > 0"},
            {"name": "Live version moved", "enable": True, "iconColor": "blue", "datasource": PROMETHEUS,
             "titleFormat": "{{model}} {{version}} is live",
             "expr": gauge("visage_live_model_info") + " unless " + gauge("visage_live_model_info") + " offset 2m"},
        ]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0, "multi": False,
             "includeAll": False,
             "regex": "", "current": {}},
            {"name": "instance", "label": "Server", "type": "query", "datasource": PROMETHEUS,
             "definition": 'label_values(visage_build_info{job="visage"}, instance)',
             "query": {"qryType": 1, "query": 'label_values(visage_build_info{job="visage"}, instance)', "refId": "instance"}, "refresh": 2,
             "sort": 1,
             "multi": True, "includeAll": True, "allValue": ".*", "regex": "", "hide": 0, "current": {"text": ["All"], "value": ["$__all"]}},
        ]},
        "links": [],
        "panels": placed(),
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
