#!/usr/bin/env python3
"""Writes `dashboard.json`, the Grafana dashboard, of the list of panels below: `deploy/grafana/dashboard.py > deploy/grafana/dashboard.json`.

The JSON is what Grafana loads and what is committed; a test keeps both alike, and asks a Prometheus that has read a real server for every
query. Grafana's own format repeats for each panel what one line says here.
"""

import json
import sys

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
# What every query of Visage's metrics selects by; `$instance` is the choice at the top of the dashboard.
SERVER = 'job="visage", instance=~"$instance"'
PREDICTING = 'method=~"visage.v1.PredictionService/Predict|inference.GRPCInferenceService/ModelInfer"'
GREEN, YELLOW, RED = "green", "yellow", "red"
WIDTH = 24


def rate(by, metric, more=""):
    """The sum of a counter's rates by some labels."""
    return "sum by ({}) (rate({}{{{}{}}}[$__rate_interval]))".format(by, metric, SERVER, more)


def quantile(share, metric):
    return "histogram_quantile({}, {})".format(share, rate("le", metric + "_bucket"))


def gauge(metric, more=""):
    return "{}{{{}{}}}".format(metric, SERVER, more)


def steps(*pairs):
    """Thresholds: a colour from a value on; the first has no value."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in pairs]}


def panel(kind, title, description, unit, queries, width=8, height=8, defaults=None, options=None):
    """One panel. `queries` are pairs of an expression and its legend, with further fields of a target after them."""
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
    """A panel of lines over time. `limits` are thresholds that are drawn as dashed lines."""
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


def figure(title, description, unit, expression, legend="", limits=None, name=False, width=4, **defaults):
    """A panel with the newest value in large; with `name`, the legend in its place."""
    settings = {"color": {"mode": "thresholds"}, "thresholds": limits or steps((None, GREEN))}
    settings.update(defaults)
    options = {"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "name" if name else "auto"}
    # At the newest moment only: a series that has ended must not be shown as if it went on.
    return panel("stat", title, description, unit, [(expression, legend, {"instant": True, "range": False})], width=width, height=4,
                 defaults=settings, options=options)


def heatmap(title, description, unit, metric, width=8):
    """How a histogram's values are spread over time."""
    query = ("sum by (le) (increase({}_bucket{{{}}}[$__rate_interval]))".format(metric, SERVER), "{{le}}", {"format": "heatmap"})
    options = {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}, "legend": {"show": True},
               "rowsFrame": {"layout": "auto"}, "tooltip": {"mode": "single", "yHistogram": False},
               "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit}}
    return panel("heatmap", title, description, "short", [query], width=width, options=options)


ROWS = [
    ("Now", [
        figure("Servers", "Servers that Prometheus reads metrics of.", "short", 'sum(up{' + SERVER + '})', limits=steps((None, RED), (1, GREEN))),
        figure("Live version", "The version of the model that predicts by default.", "short", gauge("visage_live_model_info"),
               "{{model}} {{version}}",
               name=True, noValue="none"),
        figure("Images/s", "Images that got an age, per second, over 5 minutes.", "suffix: images/s",
               'sum(instance_outcome:visage_predict_images:rate5m{' + SERVER + ', outcome="ok"})', decimals=1),
        figure("Without an age", "Share of the valid images that failed, were too late or were refused, over 5 minutes. Alarms from 5 %.",
               "percentunit",
               gauge("instance:visage_predict_unserved:ratio_rate5m"), "{{instance}}", limits=steps((None, GREEN), (0.01, YELLOW), (0.05, RED)),
               decimals=1,
               noValue="0"),
        figure("p99 of calls", "99 of 100 calls that predict take less, over 5 minutes. Alarms from 1 s.", "s",
               "max(" + gauge("instance:visage_predict_call_seconds:p99_5m") + ")", limits=steps((None, GREEN), (0.5, YELLOW), (1, RED)),
               noValue="no calls"),
        figure("Alerts", "Alerts that fire; deploy/RUNBOOK.md says what to do.", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)',
               limits=steps((None, GREEN), (1, RED))),
    ]),
    ("Serving", [
        lines("Images by outcome",
              "Images sent for prediction, per second, by how it ended. Overloaded and expired mean too little capacity, failed a fault of "
              "the server; invalid_image and cancelled are the clients' doing.", "suffix: images/s",
              [(rate("outcome", "visage_predict_images_total"), "{{outcome}}")],
              stacked=True),
        lines("Time of a call",
              "From the headers of a call that predicts to its answer, over 5 minutes. Calls of many images take longer. Alarms from 1 s.", "s",
              [(gauge("instance:visage_predict_call_seconds:p50_5m"), "p50 {{protocol}}"),
               (gauge("instance:visage_predict_call_seconds:p95_5m"), "p95 {{protocol}}"),
               (gauge("instance:visage_predict_call_seconds:p99_5m"), "p99 {{protocol}}")], limits=steps((None, GREEN), (1, RED))),
        lines("Time by stage",
              "95 of 100 take less: decoding one image, waiting for the engine, one forward pass of a batch. What is long is what to make faster.",
              "s", [(quantile(0.95, "visage_predict_decode_seconds"), "decode"), (quantile(0.95, "visage_predict_detection_seconds"), "face detection"),
                    (quantile(0.95, "visage_predict_queue_seconds"), "wait"),
                    (quantile(0.95, "visage_predict_inference_seconds"), "forward pass")]),
        heatmap("Faces", "Faces found on an image, where they were asked for.", "short", "visage_predict_faces"),
        heatmap("Batch sizes", "Images in one forward pass; larger under load.", "short", "visage_predict_batch_size"),
        lines("Queue",
              "Images that were let in and are not answered, and mean images of a batch. At max_queued_images, 256 unless it was set, calls are "
              "refused; the lines are 80 % and all of 256.", "short",
              [(gauge("visage_predict_queue_depth"), "waiting or computed {{instance}}"),
               (gauge("instance:visage_predict_batch_size:mean5m"), "mean batch {{instance}}")],
              limits=steps((None, GREEN), (205, YELLOW), (256, RED))),
        lines("Turned away by reason", "Prediction work that was not computed, per second.", "ops",
              [(rate("reason", "visage_predict_rejections_total"), "{{reason}}")]),
        lines("gRPC calls by method", "Calls that ended, per second; a stream counts when it ends. Methods without a call are left out.", "reqps",
              [(rate("method", "visage_rpc_requests_total") + " > 0", "{{method}}")]),
        lines("Calls that did not end well",
              "Calls per second that ended with another code than ok. Internal, unknown and data_loss are faults of the server.",
              "reqps", [(rate("code", "visage_rpc_requests_total", ', code!="ok"'), "gRPC {{code}}"),
                        (rate("code", "visage_http_requests_total", ', code!="ok"'), "HTTP {{code}}")]),
        lines("HTTP requests by route", "Requests under /v2 and /datasets that ended, per second. Routes without a request are left out.", "reqps",
              [(rate("route", "visage_http_requests_total") + " > 0", "{{route}}")]),
        lines("gRPC calls in flight", "Calls that have begun and not ended: predictions, and followers of trainings.", "short",
              [("sum(" + gauge("visage_rpc_in_flight", ", " + PREDICTING) + ")", "predictions"),
               ("sum(" + gauge("visage_rpc_in_flight", ', method="visage.v1.TrainingService/StreamEpochMetrics"') + ")", "StreamEpochMetrics")]),
        lines("Memory of the answers", "What the answers in the cache take; 0 while it is off.", "bytes",
              [(gauge("visage_response_cache_bytes"), "{{instance}}")]),
        lines("Faults of the server", "Share of all calls that ended as internal, unknown or data_loss, over 5 minutes. Alarms from 1 %.",
              "percentunit",
              [(gauge("instance:visage_call_faults:ratio_rate5m"), "{{protocol}} {{instance}}")], limits=steps((None, GREEN), (0.01, RED)), width=12),
        lines("Answers from the cache", "Images that were looked up in the cache of answers, per second; none while it is off.", "suffix: images/s",
              [(rate("result", "visage_response_cache_lookups_total"), "{{result}}")], stacked=True, width=12),
    ]),
    ("Trainings", [
        figure("Running", "Trainings that run; more wait in the queue.", "short", "sum(" + gauge("visage_trainings", ', state="running"') + ")"),
        figure("Waiting", "Trainings that wait for a device.", "short", "sum(" + gauge("visage_training_queue_length") + ")",
               limits=steps((None, GREEN), (10, YELLOW), (80, RED))),
        figure("Epoch", "Epochs that the running training has finished, or the last one.", "short", gauge("visage_training_epoch"), "{{instance}}"),
        figure("of", "Epochs asked of it.", "short", gauge("visage_training_max_epochs"), "{{instance}}"),
        figure("Progress", "Epochs finished of those asked.", "percentunit", gauge("instance:visage_training_progress:ratio"), "{{instance}}",
               decimals=0,
               noValue="none"),
        figure("Failed", "Trainings in the store that ended with an error.", "short", "sum(" + gauge("visage_trainings", ', state="failed"') + ")",
               limits=steps((None, GREEN), (1, YELLOW))),
        lines("Loss",
              "Of the last finished epoch, on the images learned from and on those that choose the best epoch: mean squared error in square years, whatever "
              "loss is made small. Training falling and validation rising is overfitting.", "short",
              [(gauge("visage_training_loss_square_years"), "{{split}} {{instance}}")]),
        lines("Error", "On the validation images after the last finished epoch, in years.", "suffix: years",
              [(gauge("visage_training_rmse_years"), "RMSE {{instance}}"), (gauge("visage_training_mae_years"), "MAE {{instance}}")]),
        lines("Learning rate", "At the end of the last finished epoch.", "sci", [(gauge("visage_training_learning_rate"), "{{instance}}")]),
        lines("Speed", "Images learned from in each second; 0 while none runs.", "suffix: images/s",
              [(gauge("visage_training_images_per_second"), "{{instance}}")]),
        lines("Where the time goes", "Shares of the time that trainings spent in the last hour. The counters move once an epoch.", "percentunit",
              [("avg by (phase) (" + gauge("instance_phase:visage_training_phase_seconds:ratio_rate1h") + ")", "{{phase}}")], stacked=True, max=1),
        lines("Waiting for data", "Share of the last epoch's training time that was spent waiting for decoded images. Alarms from a half.",
              "percentunit",
              [(gauge("visage_training_data_wait_ratio"), "{{instance}}")], limits=steps((None, GREEN), (0.5, RED)), max=1),
        lines("Trainings by state", "Trainings in the store.", "short", [("sum by (state) (" + gauge("visage_trainings") + ")", "{{state}}")],
              stacked=True, decimals=0),
        lines("Ended and started again",
              "Trainings that ended, by the reason, and those that went back into the queue because their process died or the server "
              "ended, in the last hour.", "short",
              [("sum by (stop_reason) (increase(visage_trainings_finished_total{" + SERVER + "}[1h])) > 0", "{{stop_reason}}"),
               ("sum(increase(visage_training_worker_restarts_total{" + SERVER + "}[1h]))", "started again")], bars=True),
        lines("Images left out", "Images that trainings could not use, in the last hour, by reason; `visage dataset check` lists them.", "short",
              [("sum by (reason) (increase(visage_training_skipped_images_total{" + SERVER + "}[1h]))", "{{reason}}"),
               ("sum(increase(visage_training_images_total{" + SERVER + "}[1h]))", "learned from")]),
    ]),
    ("Models", [
        lines("Versions that were live",
              "1 for each version that is served by default. Where one line ends and another begins the alias `live` was moved.", "short",
              [(gauge("visage_live_model_info"), "{{model}} {{version}} {{instance}}")], decimals=0, max=1),
        lines("Registered versions", "Model versions, over all models.", "short", [(gauge("visage_model_versions"), "{{instance}}")], decimals=0),
        heatmap("Time to load", "Reading, checking and warming up a model before it serves.", "s", "visage_model_load_seconds"),
        figure("Loads", "Models loaded in the last 24 hours.", "short", "sum(increase(visage_model_load_seconds_count{" + SERVER + "}[24h]))",
               decimals=0, width=6),
        figure("Visage", "What runs.", "short", gauge("visage_build_info"), "Visage {{version}}, libtorch {{libtorch}} on {{device}}", name=True,
               width=18),
    ]),
    ("Process", [
        figure("Up for", "Time since the server was started.", "s", "time() - " + gauge("process_start_time_seconds"), "{{instance}}"),
        figure("Threads", "Threads of the server.", "short", gauge("process_threads"), "{{instance}}"),
        figure("Open files", "Share of the file descriptors that are open. Alarms from 80 %.", "percentunit",
               gauge("instance:process_open_fds:ratio"), "{{instance}}",
               limits=steps((None, GREEN), (0.5, YELLOW), (0.8, RED)), decimals=1),
        figure("Memory", "What the server itself holds in RAM. Alarms from 4 GiB.", "bytes", gauge("process_resident_memory_bytes"), "{{instance}}",
               limits=steps((None, GREEN), (2 * 1024**3, YELLOW), (4 * 1024**3, RED))),
        figure("Free disk", "Of the fullest file system that is watched. Alarms below 10 %.", "percentunit",
               'min(node_filesystem_avail_bytes{job="node", fstype!~"tmpfs|ramfs|squashfs|overlay"} / node_filesystem_size_bytes{job="node", '
               'fstype!~"tmpfs|ramfs|squashfs|overlay"})', limits=steps((None, RED), (0.1, YELLOW), (0.2, GREEN)), decimals=1, noValue="not watched"),
        figure("Free memory", "Available memory of the machine, training processes included. Alarms below 10 %.", "percentunit",
               'min(node_memory_MemAvailable_bytes{job="node"} / node_memory_MemTotal_bytes{job="node"})',
               limits=steps((None, RED), (0.1, YELLOW), (0.2, GREEN)),
               decimals=1, noValue="not watched"),
        lines("Processor", "Cores that the server itself uses; training processes are not in it.", "short",
              [("rate(process_cpu_seconds_total{" + SERVER + "}[$__rate_interval])", "{{instance}}")]),
        lines("Memory over time", "What the server holds in RAM and the address space that it has reserved; training processes are not in it.",
              "bytes",
              [(gauge("process_resident_memory_bytes"), "in RAM {{instance}}"), (gauge("process_virtual_memory_bytes"), "reserved {{instance}}")]),
        lines("File descriptors", "Open, and the limit.", "short",
              [(gauge("process_open_fds"), "open {{instance}}"), (gauge("process_max_fds"), "limit {{instance}}")]),
        lines("Traces", "Spans in each second that the collector took, and those that were dropped. All 0 without `otlp_endpoint`.", "short",
              [(rate("instance", "visage_trace_spans_total"), "taken {{instance}}"),
               (rate("reason", "visage_trace_spans_lost_total"), "dropped: {{reason}}")]),
    ]),
]


def placed():
    """The rows and their panels, one below the other."""
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
        "description": "A Visage server: what it predicts, what it trains, which model is live, and what it needs.",
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
