"""Python's side of the tests of `torchvit eval`: the same models over testdata/scenes.

Runs the garments' models with scripts/parity.py's own preprocessing and PyTorch, measures them
with pycocotools and torchmetrics, and prints one JSON object. With a file of detections and one
of ground truth it measures those instead, boxes and masks.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "seg" / "testdata")]

import metrics  # noqa: E402  (seg's; computes in float64)
import modelfile  # noqa: E402
import numpy as np  # noqa: E402
import parity  # noqa: E402
import postprocess  # noqa: E402
import preprocess  # noqa: E402
from PIL import Image  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402
from torchmetrics.classification import MulticlassAccuracy  # noqa: E402

import torch  # noqa: E402

SCENES = ROOT / "testdata" / "scenes"
MODELS = ROOT / "testdata" / "models"


def evaluate(truth: str, found: Any, kind: str) -> dict[str, Any]:
    """COCOeval's twelve numbers, and each category's AP."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(truth)
        run = COCOeval(gt, gt.loadRes(copy.deepcopy(found)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, -1]
    names = {c["id"]: c["name"] for c in gt.dataset["categories"]}
    classes = {}
    for k, category in enumerate(run.params.catIds):
        values = precision[:, :, k]
        values = values[values > -1]
        if values.size:
            classes[names[category]] = float(np.mean(values))
    return {"stats": run.stats.tolist(), "classes": classes}


def detection() -> dict[str, Any]:
    """The detector's results and their figures."""
    model = parity.Model(MODELS / "garments_faster_rcnn.pt")
    truth = json.loads((SCENES / "instances.json").read_text())
    results = []
    for image in truth["images"]:
        tensor, _ = preprocess.load_tensor(str(SCENES / image["file_name"]), model.spec)
        _, found = modelfile.run(model.module, "forward", [[tensor]], 0)
        boxes = found[0]["boxes"].clone()
        boxes[:, 2:] -= boxes[:, :2]
        scores, labels = found[0]["scores"].tolist(), found[0]["labels"].tolist()
        for box, score, label in zip(boxes.tolist(), scores, labels):
            entry = {"image_id": image["id"], "category_id": label, "bbox": box, "score": score}
            results.append(entry)
    figures = evaluate(str(SCENES / "instances.json"), results, "bbox")
    return {"results": results, **figures}


def segmentation() -> dict[str, Any]:
    """mmsegmentation's, torchvision's and torchmetrics' figures."""
    model = parity.Model(MODELS / "garments_segmentation.pt")
    pairs = []
    for path in sorted(SCENES.glob("*.jpg")):
        tensor, (height, width) = preprocess.load_tensor(str(path), model.spec)
        logits = modelfile.run(model.module, "forward", [modelfile.aligned(tensor[None])], 0)
        classes = postprocess.class_map(logits, model.metadata, height, width)
        mask = np.array(Image.open(SCENES / "masks" / (path.stem + ".png")))
        pairs.append(tuple(torch.from_numpy(m.astype(np.int64)) for m in (classes, mask)))
    count = len(model.metadata["labels"])
    target = torch.cat([t.flatten() for _, t in pairs])
    predicted = torch.cat([p.flatten() for p, _ in pairs])
    answer = metrics.mmsegmentation(pairs, count, 255, False)
    answer["torchvision"] = metrics.torchvision(target, predicted, count)
    answer["torchmetrics"] = metrics.metrics(target, predicted, count, 255)
    return answer


def classification(singles: Path) -> dict[str, Any]:
    """Top-1 and top-2 of the photos of one garment that a CSV file lists."""
    model = parity.Model(MODELS / "garments_vit.pt")
    labels = model.metadata["labels"]
    rows = singles.read_text().splitlines()[1:]
    logits, truth = [], []
    for row in rows:
        name, label = row.split(",")
        tensor, _ = preprocess.load_tensor(str(SCENES / name), model.spec)
        x = modelfile.aligned(tensor[None])
        logits.append(modelfile.run(model.module, "forward", [x], 0))
        truth.append(labels.index(label))

    def top(k: int) -> float:
        m = MulticlassAccuracy(num_classes=len(labels), average="micro", top_k=k)
        m.update(torch.cat(logits), torch.tensor(truth))
        return float(m.compute())

    return {"top1": top(1), "top2": top(2)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--singles", type=Path, default=SCENES / "singles.csv", help="CSV file")
    parser.add_argument("--detections", help="COCO's results")
    parser.add_argument("--truth", help="COCO's instances")
    parser.add_argument("--kind", action="append", default=[], choices=["bbox", "segm"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.detections:
        answer = {k: evaluate(args.truth, args.detections, k) for k in args.kind}
    else:
        with torch.inference_mode():
            answer = {
                "detection": detection(),
                "segmentation": segmentation(),
                "classification": classification(args.singles),
            }
    json.dump(metrics.finite(answer), sys.stdout)


if __name__ == "__main__":
    main()
