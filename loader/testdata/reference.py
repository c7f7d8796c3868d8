"""What Python makes of a batch, from the files on: Pillow, pycocotools, torchvision.transforms.v2.

    reference.py REQUEST.json ANSWER.npz

The request holds for each image its path, objects and drawn parameters. The answer has images.I,
masks.I, boxes.I, labels.I and instances.I.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms import functional as v1
from torchvision.transforms import v2

IGNORED = 255


def outline(segmentation: Any, h: int, w: int) -> np.ndarray:
    """The pixels of COCO's polygons or run lengths."""
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, h, w)
    return coco_mask.decode(segmentation)


def prepare(item: dict[str, Any]) -> dict[str, np.ndarray]:
    """One image of the batch."""
    with Image.open(item["path"]) as file:
        image = file.convert("RGB")
    h, w = image.height, image.width
    objects = item["objects"]
    classes, seen = np.zeros((h, w), np.uint8), np.zeros((h, w), bool)
    instances = np.zeros((len(objects), h, w), np.uint8)
    for k, o in enumerate(objects):
        instances[k] = outline(o["segmentation"], h, w)
        inside = instances[k] > 0
        classes[inside] = o["label"]
        classes[inside & seen] = IGNORED
        seen |= inside
    boxes = torch.tensor([o["box"] for o in objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([o["label"] for o in objects])

    crop = v2.RandomResizedCrop(item["size"])
    params = dict(zip(("top", "left", "height", "width"), item["crop"], strict=True))
    flip = v2.RandomHorizontalFlip(1.0 if item["flip"] else 0.0)
    sample = {
        "image": image,
        "mask": tv_tensors.Mask(torch.from_numpy(classes)),
        "instances": tv_tensors.Mask(torch.from_numpy(instances)),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(h, w)),
    }
    sample = {k: flip(crop.transform(x, params)) for k, x in sample.items()}
    sample["image"] = v2.ColorJitter().transform(sample["image"], item["color"])
    sample["boxes"] = v2.ClampBoundingBoxes()(sample["boxes"])
    _, keep = v2.functional.sanitize_bounding_boxes(sample["boxes"])
    return {
        "images": v1.normalize(v1.to_tensor(sample["image"]), [0.5] * 3, [0.5] * 3).numpy(),
        "masks": sample["mask"].long().numpy(),
        "boxes": sample["boxes"][keep].numpy(),
        "labels": labels[keep].numpy(),
        "instances": sample["instances"][keep].numpy(),
    }


def main() -> None:
    request, answer = sys.argv[1:]
    arrays: dict[str, np.ndarray] = {}
    for i, item in enumerate(json.loads(Path(request).read_text())):
        for name, value in prepare(item).items():
            arrays[f"{name}.{i}"] = value
    np.savez(answer, **arrays)


if __name__ == "__main__":
    main()
