"""Write Python's losses and their gradients: cases.json and arrays.npz in a folder.

python torch/loss/testdata/reference.py --out DIR [--threads 1]
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss, sigmoid_focal_loss

ARRAYS: dict[str, np.ndarray] = {}
CASES: list[dict[str, Any]] = []
REDUCTIONS = ["mean", "sum", "none"]


def put(name: str, value: Tensor) -> None:
    """Notes a tensor; NumPy has no bfloat16."""
    value = value.detach()
    ARRAYS[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def add(
    op: str,
    name: str,
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor],
    leaves: int = 1,
    **options: Any,
) -> None:
    """Runs a loss in each reduction: value, and gradients of the first leaves inputs."""
    for i, reduction in enumerate(REDUCTIONS):
        key = f"{op}-{name}-{reduction}"
        args = {k: v.detach().clone() for k, v in inputs.items()}
        trained = list(args)[:leaves]
        for leaf in trained:
            args[leaf].requires_grad_(True)
        value = function(**args, reduction=reduction)
        # The floats of a mean of all come from one gradient, those of "none" from one each.
        g = torch.Generator().manual_seed(len(CASES))
        upstream = torch.rand(value.shape, generator=g).to(value.dtype) + 0.5
        value.backward(upstream)
        for k, v in inputs.items():
            put(f"{key}.in.{k}", v)
        put(f"{key}.upstream", upstream)
        put(f"{key}.value", value)
        for leaf in trained:
            put(f"{key}.grad.{leaf}", args[leaf].grad)
        CASES.append(
            {
                "Name": key,
                "Op": op,
                "Inputs": list(inputs),
                "DTypes": [str(v.dtype).removeprefix("torch.") for v in inputs.values()],
                "Leaves": leaves,
                "Options": {**options, "Reduction": i},
            }
        )


def dice(
    logits: Tensor,
    target: Tensor,
    reduction: str,
    smooth: float = 0.0,
    eps: float = 1e-7,
    ignore_index: int | None = None,
) -> Tensor:
    """The DiceLoss of segmentation_models_pytorch 0.3 in the mode multiclass, by its formula."""
    classes = logits.shape[1]
    p = logits.float().log_softmax(dim=1).exp().flatten(2)
    there = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        there = target != ignore_index
        p = p * there.flatten(1)[:, None]
    t = F.one_hot((target * there).flatten(1), classes).transpose(1, 2)
    t = (t * there.flatten(1)[:, None]).to(p).contiguous()
    inter, both = (p * t).sum(dim=(0, 2)), (p + t).sum(dim=(0, 2))
    score = (2.0 * inter + smooth) / (both + smooth).clamp_min(eps)
    each = (1.0 - score) * (t.sum(dim=(0, 2)) > 0)
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


def classes() -> None:
    """Cross-entropy and Dice."""
    g = torch.Generator().manual_seed(1)

    def target(*shape: int, classes: int, ignored: float = 0.0, index: int = 255) -> Tensor:
        t = torch.randint(0, classes, shape, generator=g)
        return torch.where(torch.rand(shape, generator=g) < ignored, index, t)

    def logits(*shape: int, scale: float = 3.0) -> Tensor:
        return torch.randn(shape, generator=g) * scale

    def entropy(name: str, x: Tensor, y: Tensor, **o: Any) -> None:
        tensors = {"logits": x, "target": y}
        if "weight" in o:
            tensors["weight"] = o.pop("weight")

        def run(
            logits: Tensor, target: Tensor, reduction: str, weight: Tensor | None = None
        ) -> Tensor:
            return F.cross_entropy(
                logits.float() if logits.dtype == torch.bfloat16 else logits,
                target,
                weight,
                ignore_index=o.get("IgnoreIndex", -100),
                label_smoothing=o.get("LabelSmoothing", 0.0),
                reduction=reduction,
            )

        add("cross_entropy", name, run, tensors, **o)

    weight = torch.rand(10, generator=g) + 0.2
    entropy("rows", logits(64, 10), target(64, classes=10))
    entropy("rows-double", logits(64, 10).double(), target(64, classes=10), weight=weight.double())
    entropy("rows-minus-100", logits(64, 10), target(64, classes=10, ignored=0.3, index=-100))
    entropy("rows-weighted", logits(64, 10), target(64, classes=10), weight=weight)
    entropy("rows-smoothed", logits(64, 10), target(64, classes=10), LabelSmoothing=0.1)
    masks = target(2, 33, 47, classes=10, ignored=0.3)
    entropy("masks", logits(2, 10, 33, 47), masks, IgnoreIndex=255)
    entropy("masks-weighted", logits(2, 10, 33, 47), masks, IgnoreIndex=255, weight=weight)
    entropy(
        "masks-smoothed", logits(2, 10, 33, 47), masks,
        IgnoreIndex=255, LabelSmoothing=0.2, weight=weight,
    )  # fmt: skip
    entropy("masks-bfloat16", logits(2, 10, 33, 47).bfloat16(), masks, IgnoreIndex=255)
    entropy("masks-extreme", logits(2, 10, 33, 47, scale=1e5), masks, IgnoreIndex=255)
    entropy("masks-all-ignored", logits(2, 10, 5, 7), torch.full((2, 5, 7), 255), IgnoreIndex=255)
    large = target(3, 96, 128, classes=10, ignored=0.1)
    entropy("masks-large", logits(3, 10, 96, 128), large, IgnoreIndex=255)

    def overlap(name: str, x: Tensor, y: Tensor, **o: Any) -> None:
        words = {"Smooth": "smooth", "Eps": "eps", "IgnoreIndex": "ignore_index"}
        given = {words[k]: v for k, v in o.items()}
        tensors = {"logits": x, "target": y}
        add("dice", name, lambda **k: dice(**k, **given), tensors, **o)

    overlap("plain", logits(2, 10, 33, 47), target(2, 33, 47, classes=10))
    overlap("ignored", logits(2, 10, 33, 47), masks, IgnoreIndex=255)
    overlap(
        "absent", logits(2, 10, 33, 47), masks % 3 + masks // 255 * 255, IgnoreIndex=255, Smooth=1.0
    )
    overlap("eps", logits(2, 10, 3, 4), target(2, 3, 4, classes=10), Eps=4.0)
    overlap("bfloat16", logits(2, 10, 33, 47).bfloat16(), masks, IgnoreIndex=255)
    overlap("extreme", logits(2, 10, 33, 47, scale=1e5), masks, IgnoreIndex=255)
    overlap("all-ignored", logits(2, 10, 5, 7), torch.full((2, 5, 7), 255), IgnoreIndex=255)
    overlap("large", logits(3, 10, 96, 128), large, IgnoreIndex=255)


def elements() -> None:
    """L1, smooth L1, binary cross-entropy and focal."""
    g = torch.Generator().manual_seed(2)

    def logits(*shape: int, scale: float = 3.0) -> Tensor:
        return torch.randn(shape, generator=g) * scale

    def floats(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(input: Tensor, target: Tensor, **o: Any) -> Tensor:
            if input.dtype == torch.bfloat16:
                input = input.float()
            return f(input, target.to(input), **o)

        return run

    close = logits(50, 4)
    near = close + torch.randn(50, 4, generator=g) * 0.2
    near[::7] = close[::7]
    for name, x, y in (
        ("far", logits(50, 4), logits(50, 4)),
        ("near", close, near),
        ("bfloat16", close.bfloat16(), near),
        ("large", logits(300, 128), logits(300, 128)),
    ):
        both = {"input": x, "target": y}
        add("l1", name, floats(F.l1_loss), both)
        add("smooth_l1", name, floats(F.smooth_l1_loss), both)
        add("smooth_l1", name + "-ninth", floats(lambda a, b, reduction: F.smooth_l1_loss(
            a, b, reduction=reduction, beta=1 / 9)), both, Beta=1 / 9)  # fmt: skip

    def hot(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=g) < 0.2).float()

    weight, positive = torch.rand(50, 1, generator=g), torch.rand(8, generator=g) * 4
    for name, x, y in (
        ("plain", logits(50, 8), hot(50, 8)),
        ("soft", logits(50, 8), torch.rand(50, 8, generator=g)),
        ("double", logits(50, 8).double(), hot(50, 8).double()),
        ("bool", logits(50, 8), hot(50, 8) > 0),
        ("bfloat16", logits(50, 8).bfloat16(), hot(50, 8)),
        ("extreme", logits(50, 8, scale=1e4), hot(50, 8)),
        ("large", logits(300, 128), hot(300, 128)),
    ):
        both = {"input": x, "target": y}
        bce = floats(F.binary_cross_entropy_with_logits)
        add("bce", name, bce, both)
        if name in ("plain", "extreme"):
            add("bce", name + "-weight", bce, {**both, "weight": weight})
            add("bce", name + "-pos", bce, {**both, "pos_weight": positive})
            add("bce", name + "-both", bce, {**both, "weight": weight, "pos_weight": positive})
        add("focal", name, floats(sigmoid_focal_loss), both)
        for alpha, gamma in ((-1.0, 2.0), (0.6, 1.5), (0.0, 0.0)):
            other = functools.partial(sigmoid_focal_loss, alpha=alpha, gamma=gamma)
            add("focal", f"{name}-{alpha}-{gamma}", floats(other), both, Alpha=alpha, Gamma=gamma)


def boxes() -> None:
    """GIoU and CIoU: far boxes, near ones, equal, nested, touching, none."""
    g = torch.Generator().manual_seed(3)

    def some(n: int, spread: float) -> Tensor:
        low = torch.rand(n, 2, generator=g) * spread
        return torch.cat([low, low + torch.rand(n, 2, generator=g) * 30 + 0.5], dim=1)

    near = some(60, 20)
    moved = near + torch.randn(60, 4, generator=g) * 0.4
    mixed = near.clone()
    mixed[10:20] = near[10:20] + torch.tensor([0.1, 0.1, -0.1, -0.1])  # nested
    mixed[20:30, 0] = near[20:30, 2]  # side by side
    mixed[20:30, 2] = near[20:30, 2] + 3
    mixed[30:] = some(30, 400)
    for op, f in (("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)):
        for name, a, b, leaves in (
            ("near", moved, near, 1),
            ("mixed", mixed, near, 2),
            ("far", some(40, 1000), some(40, 1000), 2),
            ("double", moved.double(), near.double(), 1),
            ("bfloat16", moved.bfloat16(), near.bfloat16(), 1),
            ("none", torch.zeros(0, 4), torch.zeros(0, 4), 2),
            ("large", some(40000, 100), some(40000, 100), 1),
        ):
            add(op, name, f, {"boxes1": a, "boxes2": b}, leaves)
        add(
            op,
            "eps",
            lambda f=f, **k: f(**k, eps=0.5),
            {"boxes1": mixed, "boxes2": near},
            2,
            Eps=0.5,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in (classes, elements, boxes):
        part()
    np.savez(args.out / "arrays.npz", **ARRAYS)
    (args.out / "cases.json").write_text(json.dumps(CASES))


if __name__ == "__main__":
    main()
