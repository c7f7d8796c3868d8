"""Makes the small models beside it, which the tests of package train train.

    .venv/bin/python train/testdata/make_models.py

vit.pt, segmentation.pt (1x1 head), progressive.pt (a head with batch norm), head.pt (for
vit.pt), faster_rcnn.pt, mask_rcnn.pt and yolo.pt are this project's models with seeded
weights; dropout.pt is a classifier with dropout; frozen.pt cannot be trained, and baked.pt,
which has the number of classes in its code, not to other classes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

import modelfile  # noqa: E402
from models.detection import vit_faster_rcnn, vit_mask_rcnn  # noqa: E402
from models.segmentation import VisionTransformerForSegmentation  # noqa: E402
from models.segmentation_heads import segmentation_head  # noqa: E402
from models.vision_transformer import VisionTransformer  # noqa: E402
from models.yolo import VisionTransformerYOLO  # noqa: E402

SIZE = 32
VIT: dict[str, Any] = {
    "img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2
}  # fmt: skip
CLASSES = ["red", "green", "blue"]
MEAN = [0.5, 0.5, 0.5]


class Dropout(nn.Module):
    """A ViT with dropout before its head."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer(num_classes=0, **VIT)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(24, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.vit(x)))


class Baked(nn.Module):
    """A classifier whose code has the number of classes in it."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer(num_classes=0, **VIT)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.vit(x)).view(x.shape[0], 3)


def metadata(task: str, kind: str, labels: list[str], **more: Any) -> dict[str, Any]:
    """torchvit.json without a reference."""
    return {
        "task": task,
        "architecture": "tiny",
        "input": {"size": [SIZE, SIZE], "multiple_of": 8, "dynamic": True},
        "preprocess": {
            "resize": {"rule": "exact", "size": [SIZE, SIZE]},
            "interpolation": "bilinear",
            "mean": MEAN,
            "std": MEAN,
        },
        "tokens": {
            "patch_size": [8, 8],
            "prefix": 1,
            "num_heads": 2,
            "depth": 2,
            "embed_dim": 24,
        },
        "output": {"kind": kind},
        "labels": labels,
        **more,
    }


def write(name: str, model: nn.Module, meta: dict[str, Any], *calls: Any) -> None:
    """Writes one file."""
    modelfile.write(model, HERE / f"{name}.pt", meta, list(calls))


def main() -> None:
    """Writes all files."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = modelfile.noise([1, 3, SIZE, SIZE], 1)
    masks = ["background", *CLASSES]

    logits = metadata("classification", "logits", CLASSES)
    vit = VisionTransformer(num_classes=3, **VIT)
    write("vit", vit, logits, ("forward", x), ("forward_features", x))
    write("dropout", Dropout(), logits, ("forward", x))
    write("baked", Baked(), logits, ("forward", x))
    frozen = torch.jit.freeze(torch.jit.script(vit.eval()))
    write("frozen", frozen, logits, ("forward", x))

    pixels = metadata("segmentation", "segmentation_logits", masks)
    model = VisionTransformerForSegmentation(len(masks), **VIT)
    write("segmentation", model, pixels, ("forward", x), ("forward_with_attention", x))
    channels = {"channels": 8, "min_channels": 8}
    model = VisionTransformerForSegmentation(
        len(masks), **VIT, head="progressive", head_options=channels
    )
    write("progressive", model, pixels, ("forward", x))
    head = metadata("segmentation_head", "head_logits", masks)
    head["preprocess"] = {"resize": {"rule": "none"}, "normalize": "none"}
    tokens = modelfile.noise([1, 17, 24], 2)
    linear = segmentation_head("linear", 24, len(masks), 8)
    write("head", linear, head, ("forward", tokens, SIZE, SIZE))

    boxes = metadata(
        "detection",
        "detections",
        ["__background__", *CLASSES],
        thresholds={"score": 0.05},
    )
    boxes["preprocess"] = {"resize": {"rule": "none"}, "normalize": "none"}
    boxes["input"] = {"size": [SIZE, 64], "dynamic": True, "layout": "list"}
    options: dict[str, Any] = {
        "min_size": SIZE, "max_size": 64,
        "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5),
        "rpn_top_n": 50, "rpn_batch_size_per_image": 32, "box_batch_size_per_image": 32,
    }  # fmt: skip
    for name, build in (("faster_rcnn", vit_faster_rcnn), ("mask_rcnn", vit_mask_rcnn)):
        more: dict[str, Any] = {"mask_layers": (8,)} if name == "mask_rcnn" else {}
        vit = VisionTransformer(num_classes=0, **VIT)
        detector = build(vit, 4, 16, (2, 1), (8, 16, 32), 32, **options, **more)
        write(name, detector, boxes, ("forward", [x[0].clamp(0, 1)]))
    grid = metadata("detection", "yolo_grid", CLASSES, thresholds={"score": 0.25, "iou": 0.45})
    anchors = (((8, 8), (12, 12)), ((16, 16), (24, 24)))
    grid["output"]["anchors"] = anchors
    yolo = VisionTransformerYOLO(VisionTransformer(num_classes=0, **VIT), 3, anchors, 16, (2, 1))
    write("yolo", yolo, grid, ("forward", x))


if __name__ == "__main__":
    main()
