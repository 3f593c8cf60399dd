"""Writes proto/baseline.binpb: the API as clients know it, which test_proto.py holds later protos against.

    .venv/bin/python tests/python/make_proto_baseline.py

Run it when the API has grown and clients are told of it, or when it is broken on purpose, and say so in the commit. The file is a FileDescriptorSet with all
imports, as `protoc --include_imports --descriptor_set_out` writes it, so that clients can also read the API from it.
"""

import os
import tempfile

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "proto")
BASELINE = os.path.join(PROTO, "baseline.binpb")
# What the network sees; `visage.worker` is spoken between processes of one version, and `visage.tensorboard` is TensorFlow's to change.
API = ("inference/grpc_predict_v2.proto", "visage/v1/dataset.proto", "visage/v1/model.proto", "visage/v1/prediction.proto", "visage/v1/system.proto",
       "visage/v1/training.proto")
INTERNAL = ("visage/tensorboard/v1/event.proto", "visage/worker/v1/worker.proto")


def compiled(files, *options):
    """Returns what protoc makes of the protos, as bytes."""
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "set.binpb")
        arguments = ["protoc", "--proto_path=" + PROTO, "--proto_path=" + os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"),
                     "--include_imports", "--descriptor_set_out=" + output]
        if protoc.main([*arguments, *options, *files]) != 0:
            raise RuntimeError("protoc refused the protos; its reason is above")
        with open(output, "rb") as file:
            return file.read()


def descriptors(files, *options):
    """The same as a message."""
    return descriptor_pb2.FileDescriptorSet.FromString(compiled(files, *options))


if __name__ == "__main__":
    with open(BASELINE + ".new", "wb") as file:
        file.write(compiled(API))
    os.replace(BASELINE + ".new", BASELINE)
