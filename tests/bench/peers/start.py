"""Starting the servers that Visage is compared with, and their requests."""

import json
import os
import socket
import struct
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
# Batch size and batching delay of these servers.
MAX_BATCH, MAX_DELAY_MS = 32, 5
TORCHSERVE = """\
inference_address=http://127.0.0.1:{}
management_address=http://127.0.0.1:{}
metrics_address=http://127.0.0.1:{}
grpc_inference_address=127.0.0.1
grpc_inference_port={}
grpc_management_address=127.0.0.1
grpc_management_port={}
disable_token_authorization=true
disable_system_metrics=true
model_store={}
load_models=age.mar
models={}
"""


def available(environments):
    """Names of the servers whose environment is complete."""
    return [name for name in ("mlserver", "torchserve", "triton") if os.path.exists(os.path.join(environments, name, "installed"))]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(name, engine, environments, weights, directory):
    """Starts a server in its own session, with its files in `directory`; returns process and gRPC address."""
    place = os.path.join(os.path.abspath(environments), name)
    program = lambda called: os.path.join(place, "bin", called)
    os.makedirs(directory, exist_ok=True)
    environment = dict(os.environ, BENCH_ENGINE=engine, BENCH_WEIGHTS=weights, BENCH_PEERS=HERE, PYTHONPATH=HERE, PATH=os.path.join(place, "bin") + ":" +
                       os.environ["PATH"], LOG_LOCATION=directory, METRICS_LOCATION=directory, TEMP=directory)
    if name == "mlserver":
        http, grpc, metrics = free_ports(3)
        write(directory, "settings.json", {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "metrics_endpoint": None,
                                        "parallel_workers": 0, "debug": False})
        write(directory, "model-settings.json", {"name": "age", "implementation": "mlserver_age.Age", "max_batch_size": MAX_BATCH,
                                              "max_batch_time": MAX_DELAY_MS / 1000, "parameters": {"version": "1"}})
        command = [program("mlserver"), "start", directory]
    elif name == "torchserve":
        ports = free_ports(5)
        grpc = ports[3]
        store = os.path.join(directory, "store")
        os.makedirs(store, exist_ok=True)
        subprocess.run([program("torch-model-archiver"), "--model-name", "age", "--version", "1.0", "--handler",
                        os.path.join(HERE, "torchserve_age.py"), "--export-path", store, "--force"], check=True, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        model = {"age": {"1.0": {"defaultVersion": True, "marName": "age.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": MAX_BATCH,
                                 "maxBatchDelay": MAX_DELAY_MS, "responseTimeout": 120}}}
        settings = os.path.join(directory, "config.properties")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(TORCHSERVE.format(*ports, store, json.dumps(model)))
        command = [program("torchserve"), "--foreground", "--start", "--ncs", "--disable-token-auth", "--ts-config", settings]
    else:
        grpc, http = free_ports(2)
        command = [program("python"), os.path.join(HERE, "triton_age.py"), str(grpc), str(http)]
    with open(os.path.join(directory, "log"), "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    return process, "127.0.0.1:{}".format(grpc)


def write(directory, name, content):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        json.dump(content, file)


def call(name, field, image):
    """Method and request of a prediction; `field` encodes a length-delimited field of a protobuf message."""
    if name == "torchserve":
        entry = field(1, b"data") + field(2, image)
        return "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", field(1, b"age") + field(3, entry)
    # The Open Inference Protocol: a BYTES tensor of the shape [1, 1].
    tensor = field(1, b"image") + field(2, b"BYTES") + field(3, b"\x01\x01")
    return ("/inference.GRPCInferenceService/ModelInfer",
            field(1, b"age") + field(5, tensor) + field(7, struct.pack("<I", len(image)) + image))
