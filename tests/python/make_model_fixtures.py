"""Makes the expected numbers of the model's tests with PyTorch 2.11 and torchvision 0.26 (not among the tests' requirements).

    python make_model_fixtures.py

Weights come from one formula that the Rust test repeats, so that no large file is committed: element i of the entry with the name n is
    scale(n) * noise(seed(n), i) + offset(n)
in double precision, rounded to f32. The noise is SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators") as
a number in [-1, 1), so that the network tells images apart and no BatchNorm divides by next to nothing.
"""

import json
import math
from pathlib import Path

import numpy
import torch
import torchvision

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


GRADIENTS = ([0.1, -0.2, 0.3, 0.5], [0.3, 0.1, -0.2, -0.4], [-0.1, 0.4, 0.05, 0.2])


def optimizer_steps(rule, clip=None, rates=(0.1, 0.1), **options):
    """A weight of three numbers and a bias of one after each of three steps."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    bias = torch.nn.Parameter(torch.tensor([0.5]))
    groups = [{"params": [weight], "lr": rates[0]}, {"params": [bias], "lr": rates[1]}]
    optimizer = rule(groups, lr=0.1, **options)
    steps = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient[:3])
        bias.grad = torch.tensor(gradient[3:])
        if clip:
            torch.nn.utils.clip_grad_norm_([weight, bias], clip)
        optimizer.step()
        steps.append([round(value, 6) for value in weight.tolist() + bias.tolist()])
    return steps


def cosine_rates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6, eta_min=0.1)
    rates = []
    for _ in range(6):
        rates.append(round(schedule.get_last_lr()[0], 7))
        optimizer.step()
        schedule.step()
    return rates


def plateau_rates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.0, min_lr=0.2)
    rates = []
    for figure in [5.0, 4.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6]:
        schedule.step(figure)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def colours():
    """Four pixels after torchvision's brightness, contrast and saturation."""
    pixels = torch.tensor([10, 200, 30, 250, 128, 0, 77, 77, 77, 255, 255, 255], dtype=torch.uint8)
    image = pixels.view(2, 2, 3).permute(2, 0, 1)
    functions = torchvision.transforms.functional
    changed = functions.adjust_contrast(functions.adjust_brightness(image, 1.3), 0.6)
    return functions.adjust_saturation(changed, 1.7).permute(1, 2, 0).flatten().tolist()


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
    optim = torch.optim
    numbers = {
        "optimizers/adam": optimizer_steps(optim.Adam),
        "optimizers/adam_decay": optimizer_steps(optim.Adam, weight_decay=0.1),
        "optimizers/adamw": optimizer_steps(optim.AdamW, weight_decay=0.1),
        "optimizers/adamw_groups": optimizer_steps(optim.AdamW, rates=(0.05, 0.01), weight_decay=0.1),
        "optimizers/sgd": optimizer_steps(optim.SGD, momentum=0.9, weight_decay=0.1),
        "optimizers/sgd_clipped": optimizer_steps(optim.SGD, clip=0.25, momentum=0.9),
        "schedules/cosine": cosine_rates(),
        "schedules/plateau": plateau_rates(),
        "imaging/colours": colours(),
    }
    for name, values in numbers.items():
        path = FIXTURES / f"{name}.in"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{json.dumps(values)}\n")
    with torch.no_grad():
        model = network().eval()
        forward = {
            "eval_224": model(images(2, 224)).squeeze(1).tolist(),
            "eval_96": model(images(2, 96)).squeeze(1).tolist(),
        }
    expected = {**forward, "training": training_step()}
    (FIXTURES / "resnet18" / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
