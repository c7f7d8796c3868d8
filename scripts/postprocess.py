"""From a model's answer to what a user sees: class maps, and detections in the photo's pixels.

Set predictions and segmentation logits go through transformers' own post-processing where it
is installed (else through the same few lines); torchvision's detections are as they come.
The YOLO layouts follow the documented behaviour of YOLOv5 and ultralytics: best class of each
candidate, score > threshold, non-maximum suppression by class, at most 300, letterbox taken
off, clipped to the photo. cmd/torchvit gives the same.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from models.yolo import decode

#: The thresholds that hold where a file names none.
SCORE = {"yolo": 0.25, "yolo_grid": 0.25, "yolo_end2end": 0.25}
MAX_DETECTIONS = 300
CLASS_OFFSET = 7680  # ultralytics moves the boxes of class c by c times this

Size = tuple[int, int]
Found = dict[str, Tensor]


def leaves(answer: Any) -> list[Tensor]:
    """The tensors of an answer in order."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, dict):
        answer = list(answer.values())
    return [t for part in answer for t in leaves(part)] if isinstance(answer, (list, tuple)) else []


def kind_of(metadata: dict[str, Any]) -> str:
    """output.kind, or what the task has where the file does not say."""
    default = {
        "segmentation": "segmentation_logits",
        "segmentation_head": "head_logits",
        "detection": "detections",
    }
    task = metadata.get("task", "classification")
    return metadata.get("output", {}).get("kind") or default.get(task, "logits")


def threshold_of(metadata: dict[str, Any], name: str, default: float) -> np.float32:
    """One of the file's thresholds, as the float32 that scores are compared with."""
    given = (metadata.get("thresholds") or {}).get(name)
    return np.float32(default if given is None else given)


# Segmentation


def class_map(answer: Tensor, metadata: dict[str, Any], height: int, width: int) -> np.ndarray:
    """The class of every pixel of the one photo in a batch of one, at the photo's size.

    Logits (1, C, h, w) are resized bilinearly in float32, then argmax; a single channel is a
    binary mask, sigmoid > thresholds.mask. Classes (1, h, w) are resized to the nearest.
    """
    if not answer.is_floating_point():
        classes = answer.reshape(1, 1, *answer.shape[-2:]).to(torch.uint8)
        if classes.shape[2:] != (height, width):
            classes = F.interpolate(classes, size=[height, width], mode="nearest")
        return classes[0, 0].numpy()
    logits = answer.float()
    if logits.shape[1] == 1:
        logits = F.interpolate(logits, [height, width], mode="bilinear", align_corners=False)
        mask = torch.sigmoid(logits) > float(threshold_of(metadata, "mask", 0.5))
        return mask[0, 0].to(torch.uint8).numpy()
    classes = semantic_map(logits, (height, width)).numpy()
    return classes.astype(np.uint8 if logits.shape[1] <= 256 else np.int32)


def semantic_map(logits: Tensor, size: Size) -> Tensor:
    """transformers' post_process_semantic_segmentation for a batch of one."""
    try:
        from transformers import SegformerImageProcessor
    except ImportError:
        resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return resized[0].argmax(dim=0)
    outputs = SimpleNamespace(logits=logits)
    return SegformerImageProcessor().post_process_semantic_segmentation(outputs, [size])[0]


# Detection


def detections(
    answer: Any,
    metadata: dict[str, Any],
    photos: list[Size],
    tensors: list[Size],
    threshold: float | None = None,
) -> list[Found]:
    """What a detector's answer says of each photo, best score first: boxes (N, 4) xyxy in the
    photo's pixels, labels (N), scores (N) and, where the file gives them, masks (N, H, W) of
    0 and 1. photos and tensors are sizes (height, width), before and after the preprocess."""
    kind = kind_of(metadata)
    if threshold is None:
        score = threshold_of(metadata, "score", SCORE.get(kind, 0.5))
    else:
        score = np.float32(threshold)
    if kind == "detections":
        return [
            torchvision_answer(one, metadata, score, photo, tensor)
            for one, photo, tensor in zip(answer[1], photos, tensors)
        ]
    if kind in ("set_prediction", "set_prediction_sigmoid"):
        return set_prediction(answer, kind, score, photos)
    if kind == "yolo_grid":
        anchors = [torch.tensor(level) for level in metadata["output"]["anchors"]]
        y = decode([level.float() for level in leaves(answer)], anchors, *tensors[0])
        boxes, classes = y[..., :4], y[..., 4:5] * y[..., 5:]
    elif kind == "yolo":
        y = leaves(answer)[0].float().transpose(1, 2)
        boxes, classes = y[..., :4], y[..., 4 : 4 + len(metadata["labels"])]
    elif kind == "yolo_end2end":
        return [
            end_to_end(one.float(), metadata, score, photo, tensor)
            for one, photo, tensor in zip(leaves(answer)[0], photos, tensors)
        ]
    else:
        raise SystemExit(f"output.kind {kind!r} is not one of a detector")
    return [
        yolo(boxes[i], classes[i], metadata, kind, score, photos[i], tensors[i])
        for i in range(len(photos))
    ]


def best_first(found: Found) -> Found:
    """Sorted by score, of equal ones in the order that is there."""
    order = torch.sort(found["scores"], descending=True, stable=True).indices
    return {name: value[order] for name, value in found.items()}


def torchvision_answer(
    one: Found, metadata: dict[str, Any], score: np.float32, photo: Size, tensor: Size
) -> Found:
    """torchvision's dict of one photo: the model has chosen and suppressed already."""
    keep = one["scores"] >= float(score)
    found = {
        "boxes": to_photo(one["boxes"][keep], metadata, photo, tensor),
        "labels": one["labels"][keep],
        "scores": one["scores"][keep],
    }
    if "masks" in one:
        if photo != tensor:
            raise SystemExit("masks: the preprocess resizes the photo, want one that does not")
        # Where a mask's pixels count: torchvision's examples have probability > 0.5.
        masks = one["masks"][keep, 0] > float(threshold_of(metadata, "mask", 0.5))
        found["masks"] = masks.to(torch.uint8)
    return best_first(found)


def set_prediction(answer: Any, kind: str, score: np.float32, photos: list[Size]) -> list[Found]:
    """transformers' post_process_object_detection of YOLOS, or of RT-DETR for sigmoid, in
    float32 also where the answer is bfloat16, whose 8 bits are too few for a box."""
    from transformers import RTDetrImageProcessor, YolosImageProcessor

    logits, boxes = (t.float() for t in leaves(answer)[:2])
    outputs = SimpleNamespace(logits=logits, pred_boxes=boxes)
    kinds = {"set_prediction": YolosImageProcessor, "set_prediction_sigmoid": RTDetrImageProcessor}
    found = kinds[kind]().post_process_object_detection(outputs, float(score), photos)
    return [best_first(one) for one in found]


def corners(boxes: Tensor) -> Tensor:
    """cxcywh to xyxy."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def yolo(
    boxes: Tensor,
    classes: Tensor,
    metadata: dict[str, Any],
    kind: str,
    score: np.float32,
    photo: Size,
    tensor: Size,
) -> Found:
    """Candidates (A, 4) cxcywh and the scores of their classes (A, C) of one photo."""
    scores, labels = classes.max(dim=1)
    keep = scores > float(score)
    boxes, scores, labels = corners(boxes[keep]), scores[keep], labels[keep]
    iou = float((metadata.get("thresholds") or {}).get("iou", 0.45))
    if kind == "yolo":
        stay = nms(boxes + (labels.float() * CLASS_OFFSET)[:, None], scores, iou)
    else:
        stay = batched_nms(boxes, scores, labels, iou)
    stay = stay[:MAX_DETECTIONS]
    placed = clip_boxes_to_image(to_photo(boxes[stay], metadata, photo, tensor), photo)
    return {"boxes": placed, "labels": labels[stay], "scores": scores[stay]}


def end_to_end(
    rows: Tensor, metadata: dict[str, Any], score: np.float32, photo: Size, tensor: Size
) -> Found:
    """Rows (N, 6) of one photo: xyxy, score, class."""
    rows = rows[rows[:, 4] > float(score)]
    placed = clip_boxes_to_image(to_photo(rows[:, :4], metadata, photo, tensor), photo)
    found = {"boxes": placed, "labels": rows[:, 5].to(torch.int64), "scores": rows[:, 4]}
    return {name: value[:MAX_DETECTIONS] for name, value in best_first(found).items()}


def to_photo(boxes: Tensor, metadata: dict[str, Any], photo: Size, tensor: Size) -> Tensor:
    """xyxy in the tensor's pixels -> in the photo's: out of a letterbox as ultralytics'
    scale_boxes, else in proportion."""
    spec = metadata.get("preprocess", {})
    if (spec.get("crop") or {}).get("rule", "none") not in ("", "none"):
        raise SystemExit("boxes: the preprocess crops the photo, want one that does not")
    if (spec.get("resize") or {}).get("rule") != "letterbox":
        x = np.float32(photo[1]) / np.float32(tensor[1])
        y = np.float32(photo[0]) / np.float32(tensor[0])
        return boxes * torch.tensor([x, y, x, y])
    gain = min(tensor[0] / photo[0], tensor[1] / photo[1])
    left = round((tensor[1] - max(round(photo[1] * gain), 1)) / 2 - 0.1)
    top = round((tensor[0] - max(round(photo[0] * gain), 1)) / 2 - 0.1)
    return (boxes - torch.tensor([left, top, left, top], dtype=boxes.dtype)) / gain
