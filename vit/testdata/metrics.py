"""torchmetrics' figures of a classifier.

Reads classes, scores (a row for each image) and targets as JSON from standard input, and writes the
confusion matrix, accuracies and precision as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassPrecision,
)

import torch

# torchmetrics computes in float32; what is compared is its formulas, so in float64.
torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def main() -> None:
    """Reads and writes."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    request = json.load(sys.stdin)
    classes = request["classes"]
    scores = torch.tensor(request["scores"], dtype=torch.float32)
    targets = torch.tensor(request["targets"])

    def of(kind: Any, **options: Any) -> Any:
        m = kind(num_classes=classes, **options)
        for rows, truth in zip(scores.split(7), targets.split(7)):
            m.update(rows, truth)
        return m.compute().tolist()

    answer = {
        "confusion": of(MulticlassConfusionMatrix),
        "top": {
            str(k): of(MulticlassAccuracy, average="micro", top_k=k) for k in range(1, classes + 1)
        },
        "accuracy": of(MulticlassAccuracy, average=None),
        "macro": of(MulticlassAccuracy, average="macro"),
        "precision": of(MulticlassPrecision, average=None),
        "class_top3": [
            of_class(scores, targets, classes, c, 3) if bool((targets == c).any()) else None
            for c in range(classes)
        ],
    }
    json.dump(answer, sys.stdout)


def of_class(scores: torch.Tensor, targets: torch.Tensor, classes: int, c: int, k: int) -> float:
    """Top-k accuracy of the images of one class."""
    m = MulticlassAccuracy(num_classes=classes, average="micro", top_k=k)
    m.update(scores[targets == c], targets[targets == c])
    return m.compute().item()


if __name__ == "__main__":
    main()
