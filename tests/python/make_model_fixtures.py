"""Makes the expected numbers of the model's tests with PyTorch 2.11 and torchvision 0.26 (not among the tests' requirements).

    python make_model_fixtures.py

Weights come from one formula that the Rust test repeats, so that no large file is committed: element i of the entry with the name n is
    scale(n) * noise(seed(n), i) + offset(n)
in double precision, rounded to f32. The noise is SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators") as
a number in [-1, 1), so that the network tells pictures apart and no BatchNorm divides by next to nothing.
"""

import json
import math
from pathlib import Path

import numpy
import torch
import torchvision

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def adam_steps(weight_decay):
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = torch.optim.Adam([parameter], lr=0.1, weight_decay=weight_decay)
    steps = []
    for gradient in ([0.1, -0.2, 0.3], [0.3, 0.1, -0.2], [-0.1, 0.4, 0.05]):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        steps.append([round(value, 6) for value in parameter.tolist()])
    return steps


def noise(seed, count):
    with numpy.errstate(over="ignore"):
        state = (numpy.uint64(seed << 32) + numpy.arange(1, count + 1, dtype=numpy.uint64)) * numpy.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        state = state ^ (state >> numpy.uint64(31))
    return torch.from_numpy((state >> numpy.uint64(11)).astype(numpy.float64) / 2**52 - 1.0)


def formula(name, shape):
    seed = sum((place + 1) * byte for place, byte in enumerate(name.encode()))
    wave = noise(seed, math.prod(shape))
    if name.endswith("running_var"):
        scale, offset = 0.2, 1.0
    elif name.endswith("running_mean"):
        scale, offset = 0.1, 0.0
    elif len(shape) == 4:
        scale, offset = math.sqrt(6.0 / math.prod(shape[1:])), 0.0
    elif name.startswith("fc."):
        scale, offset = 0.05, 0.0
    elif name.endswith("weight"):
        scale, offset = 0.2, 1.0
    else:
        scale, offset = 0.1, 0.0
    return (scale * wave + offset).reshape(shape).float()


def network():
    model = torchvision.models.resnet18(weights=None, num_classes=1)
    state = {
        name: torch.tensor(3) if name.endswith("num_batches_tracked") else formula(name, list(tensor.shape))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def images(count, side):
    index = torch.arange(3 * side * side, dtype=torch.float64)
    waves = [(1 + n) * 0.4 * torch.sin((0.013 + 0.0211 * n) * index + n) for n in range(count)]
    return torch.stack(waves).reshape(count, 3, side, side).float()


def training_step():
    """Three steps as Visage makes them: stem in eval mode without gradients, layer4 and fc trained on MSE.

    The epsilon keeps gradients near zero, whose sign is rounding, from moving a weight by the whole step size: with it the losses in f32 are
    those in f64 to seven digits whatever kernels compute them, without it to five.
    """
    model = network()
    model.eval()
    model.layer4.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("layer4", "fc"))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, eps=1e-3)
    ages = torch.tensor([20.0, 50.0, 35.0, 5.0, 80.0, 42.0])
    losses = []
    for _ in range(3):
        predicted = model(images(6, 96)).squeeze(1)
        loss = torch.nn.functional.mse_loss(predicted, ages)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    state = model.state_dict()
    return {
        "losses": losses,
        "eval_after": model(images(6, 96)).squeeze(1).tolist(),
        "running_mean": state["layer4.1.bn2.running_mean"][:4].tolist(),
        "running_var": state["layer4.1.bn2.running_var"][:4].tolist(),
        "batches": state["layer4.1.bn2.num_batches_tracked"].item(),
    }


def main():
    torch.set_num_threads(1)
    for name, decay in (("plain", 0.0), ("decay", 0.1)):
        text = json.dumps(adam_steps(decay))
        (FIXTURES / "adam" / f"{name}.in").write_text(f"{text}\n")
    with torch.no_grad():
        model = network().eval()
        forward = {
            "eval_224": model(images(2, 224)).squeeze(1).tolist(),
            "eval_96": model(images(2, 96)).squeeze(1).tolist(),
        }
    expected = {**forward, "training": training_step()}
    (FIXTURES / "resnet18" / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
