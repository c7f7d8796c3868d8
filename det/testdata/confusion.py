"""supervision's confusion matrix of detections.

Reads classes, threshold, iou and images (each with found, rows of x1 y1 x2 y2 class score, and
truth, rows of x1 y1 x2 y2 class) as JSON from standard input, and writes the matrix as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from supervision.metrics.detection import ConfusionMatrix


def main() -> None:
    """Reads and writes."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    request = json.load(sys.stdin)
    total = sum(
        ConfusionMatrix.evaluate_detection_batch(
            np.array(i["found"], np.float32).reshape(-1, 6),
            np.array(i["truth"], np.float32).reshape(-1, 5),
            request["classes"],
            request["threshold"],
            request["iou"],
        )
        for i in request["images"]
    )
    json.dump(total.tolist(), sys.stdout)


if __name__ == "__main__":
    main()
