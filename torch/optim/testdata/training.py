"""Trains a model in Python for the tests of package optim, which train it in Go in the same run.

.venv/bin/python torch/optim/testdata/training.py FOLDER

FOLDER/cases.json says what to do; see training_test.go. Writes model.pt (a ViT with dropout),
batches.npz, ID.npz for each case (every parameter and the optimizer's state after the last step,
the losses, the norms before clipping) and facts.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from timm.optim import param_groups_layer_decay
from torch.nn import functional as F

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
from models.vision_transformer import VisionTransformer  # noqa: E402

CLASSES = 6


class Net(nn.Module):
    """A small ViT behind dropout, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer(32, 8, num_classes=0, embed_dim=48, depth=2, num_heads=3)
        self.drop = nn.Dropout(0.1)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.vit(x)))

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As timm's VisionTransformer has it, for the ViT inside."""
        return {
            "stem": r"^vit\.(?:cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^vit\.blocks\.(\d+)", None), (r"^vit\.norm", (99999,))],
        }


def make(folder: Path) -> None:
    torch.manual_seed(1)
    torch.jit.script(Net().eval()).save(str(folder / "model.pt"))
    labels = torch.arange(24).reshape(3, 8) % CLASSES
    # Each class has a pattern, so that there is something to learn.
    patterns = torch.randn(CLASSES, 3, 32, 32)
    images = patterns[labels] * 0.5 + torch.randn(3, 8, 3, 32, 32)
    np.savez(folder / "batches.npz", images=images.numpy(), labels=labels.numpy())


def layer_decay(lr: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """timm's parameter groups, as names with a learning rate and a weight decay."""
    net = Net()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = param_groups_layer_decay(
        net,
        weight_decay=weight_decay,
        no_weight_decay_list=["*.cls_token", "*.pos_embed"],
        layer_decay=decay,
    )
    return [
        {
            "names": [names[id(p)] for p in g["params"]],
            "lr": lr * g["lr_scale"],
            "weight_decay": g["weight_decay"],
        }
        for g in groups
    ]


def optimizer_of(
    case: dict[str, Any], named: dict[str, nn.Parameter]
) -> tuple[torch.optim.Optimizer, list[str]]:
    """The optimizer, and the names of its parameters in its own order."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    make = kinds[case["kind"]]
    if not case["layer_decay"]:
        return make(named.values(), **case["options"]), list(named)
    groups = layer_decay(*case["layer_decay"])
    order = [name for g in groups for name in g["names"]]
    for g in groups:
        g["params"] = [named[name] for name in g.pop("names")]
    return make(groups, **case["options"]), order


def train(case: dict[str, Any], folder: Path, images: Tensor, labels: Tensor) -> None:
    module = torch.jit.load(str(folder / "model.pt")).train()
    named = dict(module.named_parameters())
    optimizer, order = optimizer_of(case, named)
    base = [g["lr"] for g in optimizer.param_groups]
    torch.manual_seed(case["seed"])
    losses, norms = [], []
    for step in range(case["steps"]):
        for group, lr in zip(optimizer.param_groups, base):
            group["lr"] = lr * case["factors"][step] if case["factors"] else lr
        for part in range(case["accumulate"]):
            k = (step * case["accumulate"] + part) % len(images)
            with torch.autocast("cpu", torch.bfloat16, enabled=case["autocast"]):
                logits = module(images[k].clone())
                assert logits.dtype == (torch.bfloat16 if case["autocast"] else torch.float32)
                loss = F.cross_entropy(logits, labels[k])
            loss.backward()
            losses.append(loss.item())
        if case["clip_norm"]:
            norms.append(nn.utils.clip_grad_norm_(named.values(), case["clip_norm"]).item())
        if case["clip_value"]:
            nn.utils.clip_grad_value_(named.values(), case["clip_value"])
        optimizer.step()
        optimizer.zero_grad()
    arrays = {name: p.detach().numpy() for name, p in named.items()}
    for i, state in optimizer.state_dict()["state"].items():
        for slot, value in state.items():
            if value is not None:
                arrays[f"{slot}.{order[i]}"] = value.numpy()
    np.savez(folder / f"{case['id']}.npz", losses=losses, norms=norms, **arrays)


def schedules() -> dict[str, list[float]]:
    """The learning rates of torch.optim.lr_scheduler for 60 steps at a base rate of 1."""
    scheduler = torch.optim.lr_scheduler
    kinds = {
        "constant": lambda o: scheduler.ConstantLR(o, factor=1),
        "cosine": lambda o: scheduler.CosineAnnealingLR(o, 59, eta_min=0.1),
        "polynomial": lambda o: scheduler.PolynomialLR(o, 40, power=0.9),
        "step": lambda o: scheduler.StepLR(o, 7, gamma=0.3),
        "warmup": lambda o: scheduler.SequentialLR(
            o,
            [
                scheduler.LinearLR(o, start_factor=0.01, total_iters=10),
                scheduler.CosineAnnealingLR(o, 50),
            ],
            milestones=[10],
        ),
    }
    out = {}
    for name, make_scheduler in kinds.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        s = make_scheduler(optimizer)
        out[name] = []
        for _ in range(60):
            out[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            s.step()
    return out


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    cases = json.loads((folder / "cases.json").read_text())
    make(folder)
    batches = np.load(folder / "batches.npz")
    images, labels = (torch.from_numpy(batches[name]).clone() for name in ("images", "labels"))
    for case in cases:
        train(case, folder, images, labels)
    facts = {
        "order": [n for n, _ in torch.jit.load(str(folder / "model.pt")).named_parameters()],
        "layer_decay": layer_decay(0.003, 0.6, 0.04),
        "schedules": schedules(),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


main()
