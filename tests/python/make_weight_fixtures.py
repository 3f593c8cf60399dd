"""Writes the weight files under tests/fixtures/weights with real torch, and what they must read as.

Run with torch 2.11.0, numpy and safetensors installed:

    python tests/python/make_weight_fixtures.py

objects.pth, objects4.pth and torchscript.pt were written by torch 1.12.1, the others by 2.11.0; both write the same format.

expected.json maps each readable file to its tensors: dtype, shape, the elements as little-endian bytes in hexadecimal
(row-major) and as numbers.
"""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import json
import os
import pathlib
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

DIRECTORY = Path(__file__).resolve().parent.parent / "fixtures" / "weights"

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "Bool",
}


def every_dtype():
    """One tensor of each element type, with values that tell the types apart."""
    return OrderedDict(
        f32=torch.tensor([[1.5, -2.25, 3.0e-8], [0.1, 1.0e30, -0.0]]),
        f64=torch.tensor([0.1, -1.0e300], dtype=torch.float64),
        f16=torch.tensor([0.1, -65504.0, 6.0e-8], dtype=torch.float16),
        bf16=torch.tensor([0.1, 3.0e38, -1.0], dtype=torch.bfloat16),
        i64=torch.tensor(-9007199254740993),
        i32=torch.tensor([2147483647, -5], dtype=torch.int32),
        i16=torch.tensor([-32768, 7], dtype=torch.int16),
        i8=torch.tensor([-128, 127], dtype=torch.int8),
        u8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        empty=torch.zeros(0, 3),
    )


def views():
    """Tensors that share one storage of the numbers 0 to 23, seen from many angles."""
    base = torch.arange(24, dtype=torch.float32)
    block = base.view(2, 3, 4)
    return {
        "whole": base,
        "block": block,
        "transposed": block.permute(2, 0, 1),
        "inner_slice": block[:, 1:, 2:],
        "every_other_column": block[:, :, ::2],
        "offset": base[5:9],
        "one_number": base[7],
        "repeated": base[3:5].unsqueeze(1).expand(2, 3),
        "overlapping": base.as_strided((4, 3), (2, 1), 1),
        "channels_last": base.view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    }


def network():
    """A convolution with a batch norm; its state dict carries versions as an attribute."""
    torch.manual_seed(7)
    layers = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(1, 2, 2, bias=False), bn=torch.nn.BatchNorm2d(2)))
    layers(torch.randn(2, 1, 4, 4))
    return layers


class Malicious:
    """Unpickling this with Python would run a command."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


class Colour(enum.Enum):
    RED = 1


class Attributes(dict):
    """A dictionary of a class of its own, as Lightning's hyperparameters."""


class Plain:
    def __init__(self):
        self.number, self.tensor = 1, torch.ones(3)


class Keywords:
    """Made with keywords only, for which protocol 4 has an instruction of its own."""

    def __new__(cls, *, number):
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"number": 1}


def objects():
    """Objects that training scripts put beside a state dict, built in each way that pickle has."""
    within_itself = []
    within_itself.append(within_itself)
    tuple_within_itself = ([],)
    tuple_within_itself[0].append(tuple_within_itself)
    dictionary = {}
    dictionary["itself"] = dictionary
    return {
        "numpy": [numpy.float64(71.25), numpy.int64(3), numpy.arange(12).reshape(3, 4), numpy.array(["a", "bb"]), numpy.array([{}, []], dtype=object)],
        "numpy_type": numpy.dtype("f4"),
        "arguments": argparse.Namespace(lr=0.1, arch="resnet18", out=pathlib.PurePosixPath("/runs/1")),
        "path": pathlib.PosixPath("/runs/1"),
        "sets": [{1, 2, 3}, frozenset([1]), set()],
        "times": [datetime.datetime(2024, 1, 31), datetime.timedelta(1), datetime.date(2024, 1, 31)],
        "collections": [collections.defaultdict(list, loss=[1.5]), collections.Counter("abc"), collections.deque([1, 2])],
        "ordered": OrderedDict(a=1),
        "hyper_parameters": Attributes(lr=0.1),
        "classes": [Colour.RED, Plain(), Keywords(number=1), Plain, decimal.Decimal("1.5"), functools.partial(print, 1), os.path.join],
        "python": [b"\x00\xff" * 10, bytearray(b"abc"), 1j, 1 << 70, 1 << 3000, -1, range(4), slice(1, 2), ..., True, None, "café"],
        "torch": [torch.device("cpu"), torch.float32, torch.Size([1, 2]), torch.ones(2, dtype=torch.complex64), torch.eye(3).to_sparse()],
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "module": torch.nn.Linear(2, 1),
        "within_itself": [within_itself, tuple_within_itself, dictionary],
        "history": [0.5, 1, None],
    }


def big_endian(little, big):
    """Rewrites an archive as a big-endian machine would have written it, for storages of four-byte elements."""
    with zipfile.ZipFile(little) as source, zipfile.ZipFile(big, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = b"".join(content[at : at + 4][::-1] for at in range(0, len(content), 4))
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            target.writestr(entry, content)


def describe(state):
    tensors = {}
    for name, tensor in state.items():
        flat = tensor.detach().contiguous().reshape(-1)
        tensors[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "bytes": flat.view(torch.uint8).numpy().tobytes().hex() if flat.numel() else "",
            "numbers": flat.to(torch.float64).tolist(),
        }
    return tensors


def main():
    assert sys.byteorder == "little"
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    model = network()
    trained = {name: parameter for name, parameter in model.named_parameters()}
    expected = {}

    def save(name, content, state, **options):
        torch.save(content, DIRECTORY / name, **options)
        expected[name] = describe(state)

    save("every_dtype.pth", every_dtype(), every_dtype())
    save("views.pth", views(), views())
    save("state_dict.pth", model.state_dict(), model.state_dict())
    save("parameters.pth", trained, trained)
    save("protocol4.pth", model.state_dict(), model.state_dict(), pickle_protocol=4)
    checkpoint = {
        "epoch": 90,
        "arch": "resnet18",
        "best": 69.76,
        "history": [1, 2.5, None, True, (3, "x")],
        "steps": 1 << 70,
        "state_dict": model.state_dict(),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    save("nested_state_dict.pth", checkpoint, model.state_dict())
    save("nested_model.pth", {"model": model.state_dict(), "epoch": 1}, model.state_dict())
    big_endian(DIRECTORY / "views.pth", DIRECTORY / "big_endian.pth")
    expected["big_endian.pth"] = describe(views())

    save_file(every_dtype(), DIRECTORY / "every_dtype.safetensors", metadata={"format": "pt"})
    expected["every_dtype.safetensors"] = describe(every_dtype())

    beside = {**objects(), "state_dict": model.state_dict()}
    save("objects.pth", beside, model.state_dict())
    save("objects4.pth", beside, model.state_dict(), pickle_protocol=4)

    # Files that must be refused.
    torch.jit.save(torch.jit.script(model), DIRECTORY / "torchscript.pt")
    torch.save(model.state_dict(), DIRECTORY / "old_format.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 1), DIRECTORY / "whole_module.pth")
    torch.save({"weight": torch.ones(2), "extra": Malicious()}, DIRECTORY / "os_system.pth")

    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(tensors)}" for name, tensors in expected.items())
    (DIRECTORY / "expected.json").write_text(f"{{\n{lines}\n}}\n")
    for path in sorted(DIRECTORY.iterdir()):
        print(path.stat().st_size, path.name)


if __name__ == "__main__":
    main()
