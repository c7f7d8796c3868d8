"""The scenes as training sees them, and figures of models on them."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import garments as g
import preprocess
from training import runs
from training.runs import ROOT, SIDE, VIT, normalised, write_whole

LABELS = ["background", *g.CLASSES]
SCENES = ROOT / "testdata" / "generated" / "scenes"
GREY = 114 / 255  # what is beside an image, as letterboxes have it


@dataclass
class Scenes:
    """A data set in memory, every image with its shortest edge at SIDE: images uint8
    (3, h, w), masks uint8 (h, w), boxes float32 (n, 4) xyxy and labels (n) 1..10; scales are
    (x, y) of those pixels to the image's own; ids are COCO's."""

    images: list[Tensor]
    masks: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]
    scales: list[Tensor]
    ids: list[int]


def instances_path(split: str) -> Path:
    """The annotations of a split."""
    return SCENES / "annotations" / f"instances_{split}.json"


def coco(split: str) -> Any:
    """The COCO data set of a split, read quietly."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(instances_path(split))


def load_scenes(split: str, limit: int = 0) -> Scenes:
    """Reads the scenes of a split, or the first of them; the whole split is kept in a file
    beside the checkpoints."""
    if not instances_path(split).is_file():
        raise SystemExit(f"{SCENES}: no scenes; run scripts/make_scenes.py")
    key = hashlib.sha256(instances_path(split).read_bytes()).hexdigest()[:16]
    cache = runs.WORK / f"scenes_{split}_{key}.pt"
    if cache.is_file() and not limit:
        return Scenes(**torch.load(cache, weights_only=True))
    data, scenes = coco(split), Scenes([], [], [], [], [], [])
    for number in sorted(data.imgs)[: limit or None]:
        entry = data.imgs[number]
        image = preprocess.decode(SCENES / split / entry["file_name"])
        height, width = image.height, image.width
        image = preprocess.resize(image, {"resize": {"rule": "shortest_edge", "size": [SIDE]}})
        mask = torch.zeros(1, 1, height, width)
        boxes, labels = [], []
        for annotation in data.loadAnns(data.getAnnIds(number)):
            mask[0, 0][torch.from_numpy(data.annToMask(annotation)) > 0] = annotation["category_id"]
            x, y, w, h = annotation["bbox"]
            boxes.append([x, y, x + w, y + h])
            labels.append(annotation["category_id"])
        size = (image.height, image.width)
        scale = torch.tensor([width / size[1], height / size[0]])
        mask = F.interpolate(mask, size=size, mode="nearest-exact")[0, 0]
        scenes.images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
        scenes.masks.append(mask.to(torch.uint8))
        scenes.boxes.append(torch.tensor(boxes).reshape(-1, 4) / scale.repeat(2))
        scenes.labels.append(torch.tensor(labels))
        scenes.scales.append(scale)
        scenes.ids.append(number)
    if not limit:
        write_whole(cache, lambda path: torch.save(vars(scenes), path))
    return scenes


def scene_batch(
    scenes: Scenes, picks: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Images (B, 3, side, side) 0..1, masks with 255 beside the image, boxes and labels:
    resized, moved, flipped and recoloured at random. Boxes of which less than 0.4 is left
    are dropped. With a side below SIDE the images are smaller and cut off."""
    images = torch.full((len(picks), 3, side, side), GREY)
    masks = torch.full((len(picks), side, side), 255, dtype=torch.int64)
    factor = (side / SIDE) ** 0.5
    boxes, labels = [], []
    for i, pick in enumerate(picks):
        image, mask = scenes.images[pick], scenes.masks[pick]
        scale = factor * float(np.exp(rng.uniform(np.log(0.75), np.log(1.25))))
        h, w = (round(v * scale) for v in image.shape[1:])
        sx, sy = w / image.shape[2], h / image.shape[1]
        resized = F.interpolate(
            image[None].float(), size=(h, w), mode="bilinear", align_corners=False
        )[0]
        coarse = F.interpolate(mask[None, None].float(), size=(h, w), mode="nearest-exact")[0, 0]
        box = scenes.boxes[pick] * torch.tensor([sx, sy, sx, sy])
        if rng.random() < 0.5:
            resized, coarse = resized.flip(2), coarse.flip(1)
            box = torch.stack([w - box[:, 2], box[:, 1], w - box[:, 0], box[:, 3]], dim=1)
        left, top = (int(rng.integers(min(0, side - v), max(0, side - v) + 1)) for v in (w, h))
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, side), min(top + h, side)
        images[i, :, y1:y2, x1:x2] = resized[:, y1 - top : y2 - top, x1 - left : x2 - left] / 255
        masks[i, y1:y2, x1:x2] = coarse[y1 - top : y2 - top, x1 - left : x2 - left].long()
        box = box + torch.tensor([left, top, left, top])
        area = (box[:, 2:] - box[:, :2]).prod(1)
        box = box.clamp(0, side)
        size = box[:, 2:] - box[:, :2]
        kept = (size.prod(1) > 0.4 * area) & (size > 3).all(1)
        boxes.append(box[kept])
        labels.append(scenes.labels[pick][kept])
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (len(picks), 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(picks), 1, 1, 1))).float()
    return (images * gain + shift).clamp(0, 1), masks, boxes, labels


def shuffled(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The step's part of endless epochs, each in its own order."""
    index = np.arange(step * batch, (step + 1) * batch)
    epochs = {
        e: np.random.default_rng([seed, 3, e]).permutation(count) for e in set(index // count)
    }
    return np.array([epochs[i // count][i % count] for i in index])


def even(image: Tensor) -> Tensor:
    """An image (3, h, w) uint8 as (1, 3, H, W) 0..1 whose sides are multiples of the patch,
    as the exported files' preprocess makes it from the scene."""
    patch = VIT["patch_size"]
    size = [max(patch, round(v / patch) * patch) for v in image.shape[1:]]
    images = image[None].float() / 255
    if list(image.shape[1:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images


def segmentation_figures(
    model: nn.Module, images: Iterable[Tensor], masks: Iterable[Tensor]
) -> dict[str, Any]:
    """mIoU of the 11 classes over all pixels of all masks, IoU of each, share of right
    pixels. Images are uint8; logits are resized to the mask's size, bilinear."""
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for image, mask in zip(images, masks):
        logits = model(normalised(even(image))).float()
        if logits.shape[2:] != mask.shape:
            logits = F.interpolate(logits, size=mask.shape, mode="bilinear", align_corners=False)
        pair = mask.long() * len(LABELS) + logits.argmax(1)[0]
        confusion += np.bincount(pair.numpy().ravel(), minlength=confusion.size).reshape(
            confusion.shape
        )
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    iou = np.diag(confusion) / np.maximum(union, 1)
    garment = confusion[1:, 1:].sum()
    return {
        "miou": float(iou.mean()),
        "pixel_accuracy": float(np.trace(confusion) / confusion.sum()),
        "garment_against_background_iou": float(garment / (confusion.sum() - confusion[0, 0])),
        "iou": dict(zip(LABELS, iou.tolist())),
    }


Found = tuple[Tensor, Tensor, Tensor]  # boxes xyxy, scores, labels 1..10 of one image


def detection_figures(
    truth: Any, found: Callable[[int], Found], scenes: Scenes, count: int = 0
) -> dict[str, Any]:
    """COCOeval's AP, AP50 and AR of boxes; found gives an image's boxes in its pixels as
    the scenes have them; AP50 by class, and of any class."""
    from pycocotools.cocoeval import COCOeval

    ids = scenes.ids[: count or None]
    rows = []
    for i, number in enumerate(ids):
        boxes, scores, labels = found(i)
        boxes = (boxes * scenes.scales[i].repeat(2)).tolist()
        for box, score, label in zip(boxes, scores.tolist(), labels.tolist()):
            x1, y1, x2, y2 = box
            rows.append([number, x1, y1, x2 - x1, y2 - y1, score, label])
    if not rows:
        return {"ap50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        answer = truth.loadRes(np.array(rows))
        figures = {}
        for use in (1, 0):
            measure = COCOeval(truth, answer, "bbox")
            measure.params.imgIds, measure.params.useCats = ids, use
            measure.evaluate()
            measure.accumulate()
            precision = measure.eval["precision"]  # IoU, recall, class, area, detections
            if not use:
                figures["ap50_any_class"] = float(precision[0, :, 0, 0, 2].mean())
                break
            measure.summarize()
            by_class = np.ma.masked_less(precision[0, :, :, 0, 2], 0).mean(0)
            figures |= {
                "ap": float(measure.stats[0]),
                "ap50": float(measure.stats[1]),
                "ap75": float(measure.stats[2]),
                "ar100": float(measure.stats[8]),
                "ap50_by_class": dict(zip(g.CLASSES, by_class.filled(-1).tolist())),
            }
    return figures


def attention_figures(vit: nn.Module, scenes: Scenes) -> dict[str, Any]:
    """How much of the class token's attention to the patches (last block, mean over heads)
    lies on garments, against the garments' share of the area: means over the scenes."""
    masses, areas, better = [], [], 0
    for image, mask in zip(scenes.images, scenes.masks):
        x = even(image)
        garment = F.interpolate((mask > 0)[None, None].float(), size=x.shape[2:], mode="nearest")
        covered = F.avg_pool2d(garment, VIT["patch_size"]).flatten()
        _, attention = vit.forward_with_attention(normalised(x))
        weights = attention[0, :, 0, 1:].mean(0)
        masses.append(float((weights * covered).sum() / weights.sum()))
        areas.append(float(covered.mean()))
        better += masses[-1] > areas[-1]
    return {
        "images": len(masses),
        "mass_on_garments": float(np.mean(masses)),
        "area_of_garments": float(np.mean(areas)),
        "ratio": float(np.mean(masses) / np.mean(areas)),
        "scenes_above_1": better / len(masses),
    }
