"""Write what Python makes of detectors' answers: cases.json, arrays.npz and list.pt in a folder.

python det/testdata/decode.py --out DIR [--threads 1]

The answers are random numbers with a real spread: boxes in clusters, scores from none to sure.
They are decoded by transformers (post_process_object_detection) and torchvision (nms, batched_nms);
the YOLO layouts, whose packages are not at hand, by the formulas of ultralytics and YOLOv5.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pycocotools.mask
import torch
from PIL import Image
from torchvision.ops import batched_nms, nms
from transformers import DeformableDetrImageProcessor, DetrImageProcessor, RTDetrImageProcessor

PHOTOS = ["astronaut.jpg", "portrait.jpg", "panorama.jpg", "tiny.png", "rocket.jpg"]
Found = dict[str, torch.Tensor]


@dataclass
class Case:
    """One answer, how Go is to read it, and what Python makes of it."""

    name: str
    kind: str
    input: list[int]
    leaves: list[torch.Tensor]
    found: list[Found]
    options: dict[str, Any] = field(default_factory=dict)
    letterbox: bool = False
    labels: int = 0
    anchors: list[Any] = field(default_factory=list)
    dtype: str = "float32"


def sizes(folder: Path) -> list[tuple[int, int]]:
    """Heights and widths of the photos."""
    return [Image.open(folder / name).size[::-1] for name in PHOTOS]


def best_first(found: list[Found], limit: int | None = None) -> list[Found]:
    """Sorts by score, of equal ones in the order that is there."""
    out = []
    for f in found:
        order = torch.sort(f["scores"].float(), descending=True, stable=True)[1][:limit]
        out.append({k: v[order] for k, v in f.items()})
    return out


def queries(g: torch.Generator, b: int, q: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and cxcywh boxes, as shares."""
    logits = torch.randn(b, q, columns, generator=g) * 3
    center = torch.rand(b, q, 2, generator=g)
    return logits, torch.cat([center, torch.rand(b, q, 2, generator=g) * 0.4 + 0.01], -1)


def set_cases(hw: list[tuple[int, int]]) -> list[Case]:
    """transformers' set predictions."""
    g = torch.Generator().manual_seed(1)
    cases = []
    for name, columns, threshold in [("detr", 92, 0.5), ("three", 4, 0.05), ("all", 7, 0.0)]:
        logits, boxes = queries(g, len(hw), 100, columns)
        for dtype in ["float32", "bfloat16"]:
            cast = getattr(torch, dtype)
            out = SimpleNamespace(logits=logits.to(cast).float(), pred_boxes=boxes.to(cast).float())
            found = DetrImageProcessor().post_process_object_detection(out, threshold, hw)
            cases.append(
                Case(
                    f"{name}-{dtype}",
                    "set_prediction",
                    [96, 160],
                    [out.logits, out.pred_boxes],
                    best_first(found),
                    {"Threshold": threshold or -1},
                    labels=columns - 1,
                    dtype=dtype,
                )
            )
    # Thresholds and classes of one's own, in plain torch.
    logits, boxes = queries(g, len(hw), 100, 7)
    out = SimpleNamespace(logits=logits, pred_boxes=boxes)
    found = DetrImageProcessor().post_process_object_detection(out, 0.0, hw)
    per_class = torch.tensor([0.6, 0.2, 0.6, 0.9, 0.6, 0.35])
    kept = []
    for f in found:
        keep = (f["scores"] > per_class[f["labels"]]) & torch.isin(
            f["labels"], torch.tensor([1, 3, 4])
        )
        kept.append({k: v[keep] for k, v in f.items()})
    cases.append(
        Case(
            "per-class",
            "set_prediction",
            [96, 160],
            [logits, boxes],
            best_first(kept, 9),
            {
                "Threshold": 0.6,
                "ClassThresholds": {"class-1": 0.2, "3": 0.9, "class-5": 0.35},
                "Classes": ["class-1", "3", "4"],
                "MaxDetections": 9,
            },
            labels=6,
        )
    )
    # Suppression on top of it, by class and over all.
    for mode in ["class", "agnostic"]:
        kept = []
        for f in DetrImageProcessor().post_process_object_detection(out, 0.1, hw):
            if mode == "class":
                keep = batched_nms(f["boxes"], f["scores"], f["labels"], 0.3)
            else:
                keep = nms(f["boxes"], f["scores"], 0.3)
            kept.append({k: v[keep] for k, v in f.items()})
        cases.append(
            Case(
                f"set-nms-{mode}",
                "set_prediction",
                [96, 160],
                [logits, boxes],
                kept,
                {"Threshold": 0.1, "NMS": mode, "IoU": 0.3},
                labels=6,
            )
        )
    logits, boxes = queries(g, len(hw), 300, 80)
    logits -= 8
    out = SimpleNamespace(logits=logits, pred_boxes=boxes)
    for name, threshold in [("rt-detr", 0.5), ("rt-detr-low", 0.1)]:
        found = RTDetrImageProcessor().post_process_object_detection(out, threshold, hw)
        cases.append(
            Case(
                name,
                "set_prediction_sigmoid",
                [96, 160],
                [logits, boxes],
                best_first(found),
                {"Threshold": threshold},
                labels=80,
            )
        )
    for top_k in [100, 7]:
        found = DeformableDetrImageProcessor().post_process_object_detection(out, 0.2, hw, top_k)
        cases.append(
            Case(
                f"deformable-{top_k}",
                "set_prediction_sigmoid",
                [96, 160],
                [logits, boxes],
                best_first(found),
                {"TopK": top_k, "Threshold": 0.2},
                labels=80,
            )
        )
    return cases


def to_corners(boxes: torch.Tensor) -> torch.Tensor:
    """ultralytics' xywh2xyxy."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def scale_boxes(boxes: torch.Tensor, canvas: list[int], photo: tuple[int, int]) -> torch.Tensor:
    """ultralytics' scale_boxes: out of a letterbox to the photo."""
    gain = min(canvas[0] / photo[0], canvas[1] / photo[1])
    left = round((canvas[1] - round(photo[1] * gain)) / 2 - 0.1)
    top = round((canvas[0] - round(photo[0] * gain)) / 2 - 0.1)
    boxes = boxes.clone()
    boxes[:, [0, 2]] -= left
    boxes[:, [1, 3]] -= top
    boxes /= gain
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clamp(0, photo[1])
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clamp(0, photo[0])
    return boxes


def stretch_boxes(boxes: torch.Tensor, canvas: list[int], photo: tuple[int, int]) -> torch.Tensor:
    """Out of a plain resize to the photo."""
    x, y = (
        np.float32(photo[1]) / np.float32(canvas[1]),
        np.float32(photo[0]) / np.float32(canvas[0]),
    )
    boxes = boxes * torch.tensor([x, y, x, y])
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clamp(0, photo[1])
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clamp(0, photo[0])
    return boxes


def suppress(
    boxes: torch.Tensor,
    classes: torch.Tensor,
    keep_nms: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    conf: float = 0.25,
    multi_label: bool = False,
    only: list[int] | None = None,
    max_det: int = 300,
) -> Found:
    """ultralytics' non_max_suppression of xyxy boxes (A, 4) and scores (A, C)."""
    if multi_label:
        anchor, label = torch.where(classes > conf)
        boxes, scores = boxes[anchor], classes[anchor, label]
    else:
        scores, label = classes.max(1)
        keep = scores > conf
        boxes, scores, label = boxes[keep], scores[keep], label[keep]
    if only is not None:
        keep = torch.isin(label, torch.tensor(only))
        boxes, scores, label = boxes[keep], scores[keep], label[keep]
    keep = keep_nms(boxes, scores, label)[:max_det]
    return {"boxes": boxes[keep], "labels": label[keep], "scores": scores[keep]}


def moved(iou: float, wide: int) -> Callable[..., torch.Tensor]:
    """NMS with the boxes of class c moved by c * wide pixels."""

    def keep(boxes: torch.Tensor, scores: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return nms(boxes + (label.float() * wide)[:, None], scores, iou)

    return keep


def yolo_cases(hw: list[tuple[int, int]]) -> list[Case]:
    """ultralytics' (B, 4+C, A) and (B, N, 6)."""
    g = torch.Generator().manual_seed(2)
    cases = []
    canvas, classes, anchors, objects = [256, 320], 20, 1680, 50
    b = len(hw)
    center = torch.rand(b, objects, 2, generator=g) * torch.tensor([320.0, 256.0])
    size = torch.rand(b, objects, 2, generator=g) * 90 + 8
    owner = torch.randint(objects, (b, anchors), generator=g)
    boxes = torch.cat([center, size], -1).gather(1, owner[..., None].expand(-1, -1, 4))
    boxes = boxes * (1 + 0.08 * torch.randn(b, anchors, 4, generator=g))
    logits = torch.randn(b, anchors, classes, generator=g) * 1.5 - 7
    favourite = (owner % classes)[..., None]
    logits.scatter_add_(2, favourite, torch.rand(b, anchors, 1, generator=g) * 7)
    logits.scatter_add_(2, (favourite + 1) % classes, torch.rand(b, anchors, 1, generator=g) * 6)
    answer = torch.cat([boxes, logits.sigmoid()], -1).transpose(1, 2).contiguous()

    def add(name: str, options: dict[str, Any], keep: Any, **how: Any) -> None:
        letterbox = how.pop("letterbox", True)
        back = scale_boxes if letterbox else stretch_boxes
        found = []
        for i in range(b):
            rows = answer[i].transpose(0, 1)
            f = suppress(to_corners(rows[:, :4]), rows[:, 4:], keep, **how)
            f["boxes"] = back(f["boxes"], canvas, hw[i])
            found.append(f)
        cases.append(
            Case(name, "yolo", canvas, [answer], found, options, letterbox, labels=classes)
        )

    add("yolo", {}, moved(0.45, 7680))
    add("yolo-stretched", {"IoU": 0.7}, moved(0.7, 7680), letterbox=False)
    add(
        "yolo-low",
        {"Threshold": 0.001, "IoU": 0.7, "MaxDetections": -1},
        moved(0.7, 7680),
        conf=0.001,
        max_det=100000,
    )
    add(
        "yolo-multi-label",
        {"Threshold": 0.05, "MultiLabel": True},
        moved(0.45, 7680),
        conf=0.05,
        multi_label=True,
    )
    add("yolo-agnostic", {"NMS": "agnostic", "IoU": 0.3}, moved(0.3, 0))
    add(
        "yolo-classes",
        {"Classes": ["class-3", "7", "class-11"], "MaxDetections": 5},
        moved(0.45, 7680),
        only=[3, 7, 11],
        max_det=5,
    )

    def everything(boxes: torch.Tensor, scores: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.sort(scores, descending=True, stable=True)[1]

    add("yolo-no-nms", {"NMS": "none", "Threshold": 0.5}, everything, conf=0.5)

    end = torch.cat([to_corners(boxes[:, :60]), logits[:, :60].sigmoid().max(-1, True)[0]], -1)
    end = torch.cat([end, favourite[:, :60].float()], -1)
    found = []
    for i in range(b):
        rows = end[i][end[i][:, 4] > 0.25]
        f = {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].long()}
        f["boxes"] = scale_boxes(f["boxes"], canvas, hw[i])
        found.append(f)
    cases.append(
        Case("end2end", "yolo_end2end", canvas, [end], best_first(found), {}, True, classes)
    )
    return cases


def grid_cases(hw: list[tuple[int, int]]) -> list[Case]:
    """YOLOv5's levels."""
    g = torch.Generator().manual_seed(3)
    cases = []
    anchors = [
        [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
        [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
        [[116.0, 90.0], [156.0, 198.0]],
    ]
    for name, canvas, classes in [("grid", [256, 320], 5), ("grid-square", [224, 224], 1)]:
        b, levels = len(hw), []
        for level, stride in zip(anchors, [8, 16, 32]):
            shape = (b, len(level), 5 + classes, canvas[0] // stride, canvas[1] // stride)
            raw = torch.randn(shape, generator=g) * 2
            raw[:, :, 4] -= 4
            levels.append(raw.flatten(1, 2))
        boxes, scores = [], []
        for raw, level in zip(levels, anchors):
            h, w = raw.shape[2:]
            y = raw.view(b, len(level), 5 + classes, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            cells = torch.stack(
                torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1
            ).float()
            xy = (y[..., 0:2] * 2 - 0.5 + cells) * (canvas[0] / h)
            wh = (y[..., 2:4] * 2) ** 2 * torch.tensor(level).view(1, -1, 1, 1, 2)
            boxes.append(torch.cat([xy, wh], -1).reshape(b, -1, 4))
            scores.append((y[..., 4:5] * y[..., 5:]).reshape(b, -1, classes))
        whole, marks = to_corners(torch.cat(boxes, 1)), torch.cat(scores, 1)
        for conf, multi_label in [(0.25, False), (0.1, True)]:
            found = []
            for i in range(b):
                f = suppress(
                    whole[i],
                    marks[i],
                    lambda boxes, scores, label: batched_nms(boxes, scores, label, 0.45),
                    conf,
                    multi_label,
                )
                f["boxes"] = scale_boxes(f["boxes"], canvas, hw[i])
                found.append(f)
            options: dict[str, Any] = {"Threshold": conf, "MultiLabel": multi_label}
            cases.append(
                Case(
                    f"{name}-{conf}",
                    "yolo_grid",
                    canvas,
                    levels,
                    found,
                    options,
                    True,
                    classes,
                    anchors,
                )
            )
    return cases


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray | None,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
) -> tuple[list[int], list[np.float32]]:
    """Bodla et al. (ICCV 2017), straight from its pseudo-code; float32 boxes and scores."""
    scores = scores.copy()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest = [i for i in range(len(boxes)) if scores[i] >= np.float32(min_score)]
    order: list[int] = []
    marks: list[np.float32] = []
    while rest:
        m = max(rest, key=lambda i: scores[i])  # the first of equal ones
        order.append(m)
        marks.append(scores[m])
        rest.remove(m)
        for i in list(rest):
            if labels is not None and labels[i] != labels[m]:
                continue
            low, high = (
                np.maximum(boxes[i, :2], boxes[m, :2]),
                np.minimum(boxes[i, 2:], boxes[m, 2:]),
            )
            side = np.maximum(high - low, np.float32(0))
            common = side[0] * side[1]
            iou = float(common / (area[i] + area[m] - common))
            if method == "gaussian":
                factor = float(np.exp(-(iou * iou) / sigma))
            else:
                factor = 1 - iou if iou >= iou_threshold else 1.0
            scores[i] = np.float32(float(scores[i]) * factor)
            if scores[i] < np.float32(min_score):
                rest.remove(i)
    return order, marks


def suppression(arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """torchvision's nms and batched_nms and the paper's soft-NMS, on boxes in clusters."""
    g = torch.Generator().manual_seed(4)
    cases: list[dict[str, Any]] = []
    for n in [1, 60, 999, 1000, 1001, 1600]:
        center = (torch.rand(max(n // 12, 1), 2, generator=g) * 600).repeat(13, 1)[:n]
        center = center + torch.randn(len(center), 2, generator=g) * 6
        size = torch.rand(len(center), 2, generator=g) * 60 + 20
        boxes = to_corners(torch.cat([center, size], -1))
        scores = torch.rand(len(boxes), generator=g)
        if n == 999:
            scores = (scores * 50).round() / 50  # ties
        labels = torch.randint(6, (len(boxes),), generator=g)
        if n >= 999:
            labels *= 400  # far apart, so that moving the boxes rounds their overlaps
        key = f"nms{n}"
        arrays |= {f"{key}.boxes": boxes.numpy(), f"{key}.scores": scores.numpy()}
        arrays[f"{key}.labels"] = labels.numpy()
        case: dict[str, Any] = {"key": key, "iou": [0.2, 0.45, 0.7]}
        case["nms"] = [nms(boxes, scores, t).tolist() for t in case["iou"]]
        case["batched"] = [batched_nms(boxes, scores, labels, t).tolist() for t in case["iou"]]
        case["soft"] = []
        if n <= 60 or n == 999:
            for method, iou, sigma, low, by_label in [
                ("linear", 0.3, 0.5, 0.001, False),
                ("linear", 0.5, 0.5, 0.2, True),
                ("gaussian", 0.3, 0.5, 0.001, False),
                ("gaussian", 0.3, 0.2, 0.1, True),
            ]:
                order, marks = soft_nms(
                    boxes.numpy(),
                    scores.numpy(),
                    labels.numpy() if by_label else None,
                    method,
                    iou,
                    sigma,
                    low,
                )
                mark = f"{key}.soft{len(case['soft'])}"
                arrays[mark] = np.array(marks, np.float32)
                case["soft"].append(
                    {
                        "method": method,
                        "iou": iou,
                        "sigma": sigma,
                        "low": low,
                        "by_label": by_label,
                        "order": order,
                        "scores": mark,
                    }
                )
        cases.append(case)
    return cases


def masks(arrays: dict[str, np.ndarray], hw: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Masks as Mask R-CNN pastes them, cut at a threshold, as pycocotools encodes them.

    At the photo's size, or at an input's size: resized, letterboxed or cropped to the middle.
    """
    g = torch.Generator().manual_seed(5)
    cases = []
    for rule, size in [
        ("", None),
        ("exact", (72, 88)),
        ("letterbox", (96, 80)),
        ("crop", (64, 48)),
    ]:
        for threshold in [0.5, 0.3]:
            answers = []
            for i, photo in enumerate(hw):
                n, (h, w) = 5, size or photo
                coarse = torch.randn(n, 1, 7, 6, generator=g) * 3
                smooth = torch.nn.functional.interpolate(
                    coarse, size=(h, w), mode="bilinear", align_corners=False
                ).sigmoid()
                key = f"masks-{rule}-{threshold}.{i}"
                arrays[key] = smooth.numpy()
                whole = smooth
                if rule == "letterbox":
                    gain = min(h / photo[0], w / photo[1])
                    inner = [max(round(side * gain), 1) for side in photo]
                    top = round((h - inner[0]) / 2 - 0.1)
                    left = round((w - inner[1]) / 2 - 0.1)
                    whole = smooth[:, :, top : top + inner[0], left : left + inner[1]]
                elif rule == "crop":  # the middle of 80 x 112
                    whole = torch.zeros(n, 1, 80, 112)
                    whole[:, :, 8:72, 32:80] = smooth
                whole = torch.cat(
                    [
                        torch.nn.functional.interpolate(
                            one[None], size=photo, mode="bilinear", align_corners=False
                        )
                        for one in whole
                    ]
                )
                if rule == "":
                    whole = smooth
                found = (whole > threshold)[:, 0].numpy().astype(np.uint8)
                codes = [pycocotools.mask.encode(np.asfortranarray(m)) for m in found]
                answers.append(
                    {"key": key, "counts": [c["counts"].decode() for c in codes], "size": photo}
                )
            cases.append({"rule": rule, "input": size, "threshold": threshold, "answers": answers})
    return cases


class OneOfList(torch.nn.Module):
    """What a trace of torchvision's detectors is: it takes a list of one photo, no other."""

    def forward(self, images: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """(labels, boxes, scores) made of the first pixels."""
        low = images[0][:2, :5, 0].t() * 10
        scores = images[0][2, :5, 1].clamp(0.1, 0.9)
        return (scores * 3).long(), torch.cat([low, low + 20], 1), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hw = sizes(Path(__file__).parents[2] / "testdata" / "images")
    arrays: dict[str, np.ndarray] = {}
    listed: list[dict[str, Any]] = []
    for case in set_cases(hw) + yolo_cases(hw) + grid_cases(hw):
        for i, leaf in enumerate(case.leaves):
            arrays[f"{case.name}.leaf{i}"] = leaf.numpy()
        for i, f in enumerate(case.found):
            for k, v in f.items():
                arrays[f"{case.name}.{i}.{k}"] = (v if k == "labels" else v.float()).numpy()
        listed.append(
            {
                "name": case.name,
                "kind": case.kind,
                "input": case.input,
                "letterbox": case.letterbox,
                "labels": case.labels,
                "anchors": case.anchors,
                "dtype": case.dtype,
                "options": case.options,
                "leaves": len(case.leaves),
            }
        )
    record = {
        "photos": PHOTOS,
        "cases": listed,
        "suppression": suppression(arrays),
        "masks": masks(arrays, hw),
    }
    torch.jit.trace(OneOfList(), ([torch.rand(3, 30, 20)],)).save(str(args.out / "list.pt"))
    np.savez(args.out / "arrays.npz", **arrays)
    (args.out / "cases.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
