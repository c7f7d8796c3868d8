"""Evaluates results with pycocotools' COCOeval and prints every array as JSON."""

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def start(case: dict[str, Any]) -> COCOeval:
    gt = COCO(case["gt"])
    evaluation = COCOeval(gt, gt.loadRes(case["dt"]), case["type"])
    params = evaluation.params
    if case.get("iou"):
        params.iouThrs = np.array(case["iou"])
    if case.get("recall"):
        params.recThrs = np.array(case["recall"])
    if case.get("max"):
        params.maxDets = case["max"]
    if case.get("areas"):
        params.areaRng = [[a["Min"], a["Max"]] for a in case["areas"]]
        params.areaRngLbl = [a["Name"] for a in case["areas"]]
    if case.get("images"):
        params.imgIds = case["images"]
    if case.get("categories"):
        params.catIds = case["categories"]
    params.useCats = 0 if case.get("agnostic") else 1
    return evaluation


def matches(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": int(entry["image_id"]),
        "category": int(entry["category_id"]),
        "area": entry["aRng"],
        "dtIds": [int(i) for i in entry["dtIds"]],
        "gtIds": [int(i) for i in entry["gtIds"]],
        "dtMatches": entry["dtMatches"].astype(int).ravel().tolist(),
        "gtMatches": entry["gtMatches"].astype(int).ravel().tolist(),
        "dtIgnore": entry["dtIgnore"].astype(bool).ravel().tolist(),
        "gtIgnore": entry["gtIgnore"].astype(bool).ravel().tolist(),
    }


def evaluate(case: dict[str, Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = start(case)
        begin = time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
        seconds = time.perf_counter() - begin
    text = io.StringIO()
    if not case.get("areas") and not case.get("max"):
        with contextlib.redirect_stdout(text):
            evaluation.summarize()
    if case.get("bench"):
        return {"seconds": seconds, "stats": list(evaluation.stats)}
    return {
        "iou": evaluation.params.iouThrs.tolist(),
        "recalls": evaluation.params.recThrs.tolist(),
        "shape": list(evaluation.eval["precision"].shape),
        "precision": evaluation.eval["precision"].ravel().tolist(),
        "scores": evaluation.eval["scores"].ravel().tolist(),
        "recall": evaluation.eval["recall"].ravel().tolist(),
        "stats": list(evaluation.stats),
        "text": text.getvalue(),
        "matches": [matches(e) for e in evaluation.evalImgs if e is not None],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, help="the JSON file that the test wrote")
    cases = json.loads(parser.parse_args().cases.read_text())
    print(json.dumps([evaluate(c) for c in cases]))


if __name__ == "__main__":
    main()
