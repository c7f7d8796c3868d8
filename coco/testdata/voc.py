"""Pascal VOC's average precision by its definition, over whole arrays; prints JSON."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def evaluate(case: dict[str, Any]) -> dict[str, Any]:
    detections = sorted(case["detections"], key=lambda d: -d["Score"])
    objects = case["objects"]
    threshold = case["threshold"]
    positives = sum(not o["Difficult"] for o in objects)
    found = [False] * len(objects)
    right, wrong = np.zeros(len(detections)), np.zeros(len(detections))
    for i, d in enumerate(detections):
        # Corners as VOC has them: pixels from 1, the last one within.
        x0, y0 = d["Box"][0] + 1, d["Box"][1] + 1
        x1, y1 = d["Box"][0] + d["Box"][2], d["Box"][1] + d["Box"][3]
        overlaps = np.full(len(objects), -np.inf)
        for j, o in enumerate(objects):
            if o["Image"] != d["Image"]:
                continue
            u0, v0 = o["Box"][0] + 1, o["Box"][1] + 1
            u1, v1 = o["Box"][0] + o["Box"][2], o["Box"][1] + o["Box"][3]
            w, h = min(x1, u1) - max(x0, u0) + 1, min(y1, v1) - max(y0, v0) + 1
            if w > 0 and h > 0:
                area = (x1 - x0 + 1) * (y1 - y0 + 1) + (u1 - u0 + 1) * (v1 - v0 + 1)
                overlaps[j] = w * h / (area - w * h)
        j = int(np.argmax(overlaps)) if len(objects) else 0
        if not len(objects) or overlaps[j] < threshold:
            wrong[i] = 1
        elif objects[j]["Difficult"]:
            continue
        elif found[j]:
            wrong[i] = 1
        else:
            right[i], found[j] = 1, True
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    recall, precision = tp / positives, tp / np.maximum(tp + fp, np.finfo(np.float64).eps)
    eleven = 0.0
    for t in np.arange(0.0, 1.1, 0.1):
        eleven += (precision[recall >= t].max() if (recall >= t).any() else 0.0) / 11
    mrec, mpre = np.r_[0, recall, 1], np.r_[0, precision, 0]
    mpre = np.maximum.accumulate(mpre[::-1])[::-1]
    steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    area = float(((mrec[steps] - mrec[steps - 1]) * mpre[steps]).sum())
    return {
        "recall": recall.tolist(),
        "precision": precision.tolist(),
        "eleven": float(eleven),
        "area": area,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, help="the JSON file that the test wrote")
    print(json.dumps([evaluate(c) for c in json.loads(parser.parse_args().cases.read_text())]))


if __name__ == "__main__":
    main()
