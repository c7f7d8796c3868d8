"""Write Python's losses of detectors and their gradients: cases.json, arrays.npz and the
detectors' files in a folder.

python det/testdata/losses.py grids|detectors --out DIR [--threads 1]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from models.detection import vit_faster_rcnn, vit_mask_rcnn, vit_retinanet  # noqa: E402
from models.vision_transformer import VisionTransformer  # noqa: E402
from models.yolo import scaled_anchors  # noqa: E402
from models.yolo_loss import yolo_loss  # noqa: E402

ARRAYS: dict[str, np.ndarray] = {}


def put(name: str, value: Tensor) -> None:
    """Notes a tensor; NumPy has no bfloat16."""
    value = value.detach()
    ARRAYS[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()


def some_boxes(g: torch.Generator, n: int, height: int, width: int, least: float) -> Tensor:
    """n boxes inside the image."""
    size = torch.tensor([width, height]).float()
    side = least + torch.rand(n, 2, generator=g) * (size / 2 - least)
    low = torch.rand(n, 2, generator=g) * (size - side)
    return torch.cat([low, low + side], dim=1)


def grids() -> list[dict[str, Any]]:
    """Cases of the loss of the YOLO grid."""
    cases: list[dict[str, Any]] = []
    g = torch.Generator().manual_seed(1)

    def add(
        name: str,
        size: tuple[int, int],
        boxes: list[Tensor],
        strides: list[int],
        classes: int = 5,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        height, width = size
        anchors = scaled_anchors(128)[: len(strides)]
        labels = [torch.randint(0, classes, (len(b),), generator=g) for b in boxes]
        levels = []
        for i, stride in enumerate(strides):
            shape = (len(boxes), 3 * (5 + classes), height // stride, width // stride)
            level = (torch.randn(shape, generator=g) * scale).to(dtype).requires_grad_(True)
            levels.append(level)
            put(f"{name}.level.{i}", level)
        for i, (b, v) in enumerate(zip(boxes, labels)):
            put(f"{name}.boxes.{i}", b)
            put(f"{name}.labels.{i}", v)
        loss, parts = yolo_loss(levels, boxes, labels, anchors, height, width, **options)
        loss.backward()
        put(f"{name}.loss", loss)
        for part, value in parts.items():
            put(f"{name}.{part}", value)
        for i, level in enumerate(levels):
            put(f"{name}.grad.{i}", level.grad)
        cases.append(
            {
                "Name": name,
                "Height": height,
                "Width": width,
                "Images": len(boxes),
                "Levels": len(levels),
                "Anchors": anchors,
                "DType": str(dtype).removeprefix("torch."),
                "Options": options,
            }
        )

    def three(n: int = 4) -> list[Tensor]:
        return [some_boxes(g, n, 64, 64, 8), torch.zeros(0, 4), some_boxes(g, 2, 64, 64, 8)]

    odd = torch.tensor(
        [
            [0.0, 0, 20, 20],  # in a corner
            [44, 44, 64, 64],  # in the other
            [4, 4, 20, 20],  # its centre between two cells of some level
            [6, 6, 22, 22],  # its centre in the middle of a cell
            [6.1, 6.2, 22, 22.3],  # nearly the same
            [30, 30, 30, 40],  # no width
            [40, 40, 30, 30],  # the wrong way round
            [-300, 10, 300, 20],  # as no anchor
            [-20, 10, 5, 30],  # its centre outside
            [50, 60, 80, 90],  # its centre beyond the last cell
        ]
    )
    strides = [4, 8, 16]
    add("three", (64, 64), three(), strides)
    add("crowded", (64, 64), [some_boxes(g, 40, 64, 64, 4)], strides)
    add("odd", (64, 64), [odd, odd.flip(0)], strides)
    add("none", (64, 64), [torch.zeros(0, 4)] * 2, strides)
    add("bfloat16", (64, 64), three(), strides, dtype=torch.bfloat16)
    add("extreme", (64, 64), three(), strides, scale=1e4)
    add(
        "oblong", (64, 112), [some_boxes(g, 5, 64, 112, 8) for _ in range(2)], [4, 8],
        box_weight=0.05, objectness_weight=0.7, class_weight=0.3, balance=[2.0, 0.5],
    )  # fmt: skip
    add("one-level", (64, 64), three(), [8], classes=1)
    add("large", (128, 128), [some_boxes(g, 3, 128, 128, 16) for _ in range(4)], strides, 10)
    return cases


def small() -> VisionTransformer:
    return VisionTransformer(
        img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "faster_rcnn": lambda: vit_faster_rcnn(
        small(), 5, 16, anchor_sizes=(8, 16, 24, 32, 48), representation_size=32,
        min_size=64, max_size=96, rpn_top_n=60,
    ),
    "mask_rcnn": lambda: vit_mask_rcnn(
        small(), 5, 16, anchor_sizes=(8, 16, 24, 32, 48), representation_size=32,
        mask_layers=(8,), min_size=64, max_size=96, rpn_top_n=60,
    ),
    "retinanet": lambda: vit_retinanet(
        small(), 5, 16, anchor_sizes=(8, 16, 32, 48), min_size=64, max_size=96,
    ),
}  # fmt: skip


class Traceable(nn.Module):
    """What a trace of a detector takes and gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model(images)[0]
        return found["boxes"], found["labels"], found["scores"]


def detectors(out: Path) -> list[dict[str, Any]]:
    """Scripted detectors in training mode: the losses and gradients of some steps."""
    cases = []
    g = torch.Generator().manual_seed(2)
    for name, make in MODELS.items():
        torch.manual_seed(3)
        path = out / f"{name}.pt"
        model = make().eval()
        scripted = torch.jit.script(model)
        scripted.save(path)
        if name == "faster_rcnn":
            torch.jit.freeze(scripted).save(out / "frozen.pt")
            traced = torch.jit.trace(
                Traceable(model), ([torch.rand(3, 64, 64)],), check_trace=False
            )
            traced.save(out / "traced.pt")
        module = torch.jit.load(path)
        module.train()
        for p in module.parameters():
            p.requires_grad_(True)
        names: list[list[str]] = []
        for step in range(
            3 if name == "faster_rcnn" else 2
        ):  # the second compiles, the third runs that
            shapes = [(64, 64), (48, 80)]
            images = [torch.rand(3, h, w, generator=g) for h, w in shapes]
            targets = []
            for i, (h, w) in enumerate(shapes):
                n = 0 if step == 1 and i == 1 else 3
                boxes = some_boxes(g, n, h, w, 8)
                masks = torch.zeros(n, h, w, dtype=torch.uint8)
                for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist()):
                    mask[y1:y2, x1 : (x1 + x2 + 1) // 2] = 1
                labels = torch.randint(1, 5, (n,), generator=g)
                targets.append({"boxes": boxes, "labels": labels, "masks": masks})
            if name != "mask_rcnn":
                targets = [{k: t[k] for k in ("boxes", "labels")} for t in targets]
            torch.manual_seed(10 + step)
            losses, _ = module(images, targets)
            names.append(sorted(losses))
            module.zero_grad()
            sum(losses[k] for k in sorted(losses)).backward()
            key = f"{name}.{step}"
            for i, image in enumerate(images):
                put(f"{key}.image.{i}", image)
                for k, v in targets[i].items():
                    put(f"{key}.{k}.{i}", v)
            for k, v in losses.items():
                put(f"{key}.{k}", v)
            for k, p in module.named_parameters():
                if p.grad is not None:
                    put(f"{key}.grad.{k}", p.grad)
        cases.append({"Name": name, "Losses": names})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["grids", "detectors"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = grids() if args.part == "grids" else detectors(args.out)
    (args.out / "cases.json").write_text(json.dumps(cases))
    np.savez(args.out / "arrays.npz", **ARRAYS)


if __name__ == "__main__":
    main()
