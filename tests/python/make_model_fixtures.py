"""Makes the expected numbers of the model's tests with PyTorch 2.11 and torchvision 0.26 (not among the tests' requirements).

    python make_model_fixtures.py

Weights come from one formula that the Rust test repeats, so that no large file is committed: element i of the entry with the name n is
    scale(n) * sin(0.37 * i + c(n)) + offset(n),   c(n) = (sum of the name's bytes) % 97
in double precision, rounded to f32.
"""

import json
import math
from pathlib import Path

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


def formula(name, shape):
    count = math.prod(shape)
    phase = sum(name.encode()) % 97
    index = torch.arange(count, dtype=torch.float64)
    wave = torch.sin(0.37 * index + phase)
    if name.endswith("running_var"):
        scale, offset = 0.2, 1.0
    elif name.endswith("running_mean"):
        scale, offset = 0.1, 0.0
    elif len(shape) == 4:
        scale, offset = math.sqrt(2.0 / math.prod(shape[1:])), 0.0
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
    index = torch.arange(count * 3 * side * side, dtype=torch.float64)
    return torch.sin(0.013 * index).reshape(count, 3, side, side).float()


def training_step():
    """One step as Visage makes it: stem in eval mode without gradients, layer4 and fc trained on MSE."""
    model = network()
    model.eval()
    model.layer4.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("layer4", "fc"))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ages = torch.tensor([20.0, 50.0, 35.0])
    losses = []
    for _ in range(3):
        predicted = model(images(3, 96)).squeeze(1)
        loss = torch.nn.functional.mse_loss(predicted, ages)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    state = model.state_dict()
    return {
        "losses": losses,
        "eval_after": model(images(3, 96)).squeeze(1).tolist(),
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
