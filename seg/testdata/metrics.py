"""What Python makes of predictions and labels: torchmetrics, and the written formulas of others.

Reads a JSON list from standard input, each entry of it classes, ignore (a label),
reduce_zero_label and images, those with width, height and base64 of the bytes of predicted and
labels. Writes a list of the figures as JSON, NaN as null.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
from typing import Any

import numpy as np
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.segmentation import DiceScore

import torch
from torch import Tensor

# torchmetrics computes in float32; what is compared is its formulas, so in float64.
torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def mmsegmentation(
    images: list[tuple[Tensor, Tensor]], classes: int, ignore: int, reduce_zero_label: bool
) -> dict[str, Any]:
    """IoUMetric of mmsegmentation 1.x as its code states it: intersect_and_union for each image,
    the areas added up, total_area_to_metrics; in float64 and without its rounding."""
    intersect = torch.zeros(classes, dtype=torch.float64)
    union, predicted_area, label_area = intersect.clone(), intersect.clone(), intersect.clone()

    def area(x: Tensor) -> Tensor:
        return torch.histc(x.double(), bins=classes, min=0, max=classes - 1)

    for predicted, original in images:
        label = original.clone()
        if reduce_zero_label:
            label[label == 0] = 255
            label = label - 1
            label[label == 254] = 255
        mask = label != ignore
        p, t = predicted[mask], label[mask]
        i, a, b = area(p[p == t]), area(p), area(t)
        intersect, union = intersect + i, union + (a + b - i)
        predicted_area, label_area = predicted_area + a, label_area + b
    iou = intersect / union
    acc = intersect / label_area
    dice = 2 * intersect / (predicted_area + label_area)
    precision, recall = intersect / predicted_area, intersect / label_area
    f = (1 + 1**2) * (precision * recall) / ((1**2 * precision) + recall)

    def mean(x: Tensor) -> float:
        return float(np.nanmean(x.numpy()))

    return {
        "aAcc": float(intersect.sum() / label_area.sum()),
        "IoU": iou.tolist(),
        "mIoU": mean(iou),
        "Acc": acc.tolist(),
        "mAcc": mean(acc),
        "Dice": dice.tolist(),
        "mDice": mean(dice),
        "Precision": precision.tolist(),
        "mPrecision": mean(precision),
        "mRecall": mean(recall),
        "Fscore": f.tolist(),
        "mFscore": mean(f),
    }


def torchvision(target: Tensor, predicted: Tensor, classes: int) -> dict[str, Any]:
    """ConfusionMatrix of torchvision's references/segmentation/utils.py, in float64."""
    k = (target >= 0) & (target < classes)
    index = classes * target[k] + predicted[k]
    h = torch.bincount(index, minlength=classes**2).reshape(classes, classes).double()
    iu = torch.diag(h) / (h.sum(1) + h.sum(0) - torch.diag(h))
    return {
        "matrix": h.long().flatten().tolist(),
        "global": float(torch.diag(h).sum() / h.sum()),
        "acc": (torch.diag(h) / h.sum(1)).tolist(),
        "iou": iu.tolist(),
        "mean": float(iu.mean()),
    }


def metrics(target: Tensor, predicted: Tensor, classes: int, ignore: int) -> dict[str, Any]:
    """torchmetrics over all pixels."""

    def of(kind: Any, average: str) -> Any:
        m = kind(num_classes=classes, average=average, ignore_index=ignore)
        m.update(predicted, target)
        return m.compute().tolist()

    kept = target != ignore
    out: dict[str, Any] = {
        "iou": of(MulticlassJaccardIndex, "none"),
        "mean_iou": of(MulticlassJaccardIndex, "macro"),
        "pixel_accuracy": of(MulticlassAccuracy, "micro"),
        "accuracy": of(MulticlassAccuracy, "none"),
        "precision": of(MulticlassPrecision, "none"),
        "recall": of(MulticlassRecall, "none"),
    }
    dice = DiceScore(classes, True, "none", "global", "index")
    dice.update(predicted[kept][None], target[kept][None])
    out["dice"] = dice.compute().tolist()
    return out


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The figures of one entry."""
    classes, ignore = request["classes"], request["ignore"]

    def plane(image: dict[str, Any], name: str) -> Tensor:
        data = np.frombuffer(base64.b64decode(image[name]), np.uint8).astype(np.int64)
        return torch.from_numpy(data.reshape(image["height"], image["width"]))

    images = [(plane(i, "predicted"), plane(i, "labels")) for i in request["images"]]
    reduce = request["reduce_zero_label"]
    figures: dict[str, Any] = {"mmsegmentation": mmsegmentation(images, classes, ignore, reduce)}
    if not reduce:
        predicted = torch.cat([p.flatten() for p, _ in images])
        target = torch.cat([t.flatten() for _, t in images])
        figures["torchvision"] = torchvision(target, predicted, classes)
        figures["torchmetrics"] = metrics(target, predicted, classes, ignore)
    return figures


def finite(v: Any) -> Any:
    """Replaces NaN by null."""
    if isinstance(v, dict):
        return {k: finite(x) for k, x in v.items()}
    if isinstance(v, list):
        return [finite(x) for x in v]
    return None if isinstance(v, float) and math.isnan(v) else v


def main() -> None:
    """Reads and writes."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    json.dump(finite([answer(r) for r in json.load(sys.stdin)]), sys.stdout)


if __name__ == "__main__":
    main()
