"""The training loss of VisionTransformerYOLO's raw levels, as YOLOv5's documentation describes it.

Which predictions a box trains: at each level, the anchors whose width and height are within
a factor of 4 of the box's, in the cell of the box's centre, in its nearest neighbour to the
left or right and in its nearest one above or below. The loss is that of

- the box: 1 - CIoU of the decoded box (Zheng et al., arXiv:1911.08287, torchvision's
  complete_box_iou_loss), the mean of a level's matches;
- objectness: binary cross-entropy in every cell, whose target is the CIoU of the best box
  that the prediction is matched with, 0 without one; the mean of a level times its balance;
- classes: binary cross-entropy of each class, the mean of a level's matches;

each summed over the levels. Everything is computed in float32.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from models.yolo import Anchors

#: How many times a box's side may be longer or shorter than its anchor's.
MAX_RATIO = 4.0
#: Half of a predicted side in pixels is at least this: the CIoU of boxes without sides is NaN.
MIN_HALF = 1e-3
#: YOLOv5's weights of the objectness of strides 8, 16 and 32.
BALANCE = (4.0, 1.0, 0.4)


class Matches(NamedTuple):
    """What a level predicts for which box, in the order of boxes, anchors and cells: the box's
    own, the one beside it, the one above or below."""

    box: Tensor  # (n) indices of boxes
    anchor: Tensor  # (n) indices of the level's anchors
    cell: Tensor  # (n, 2) column and row


def match(boxes: Tensor, anchors: Tensor, grid: Tensor, stride: Tensor) -> Matches:
    """boxes (N, 4) xyxy, anchors (A, 2); grid and stride are (2): columns and rows, and how many
    pixels each is wide and high. Boxes without an area match nothing."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
    ratio = (boxes[:, 2:] - boxes[:, :2])[:, None] / anchors  # (N, A, 2)
    fits = ((ratio > 1 / MAX_RATIO) & (ratio < MAX_RATIO)).all(-1)
    cell = centre.floor().clamp(min=0).minimum(grid - 1)
    inside = centre - cell
    step = (inside > 0.5).to(cell) - (inside < 0.5).to(cell)  # to the nearest neighbour
    beside, above = step * torch.tensor([1, 0]).to(step), step * torch.tensor([0, 1]).to(step)
    cells = torch.stack([cell, cell + beside, cell + above], dim=1)  # (N, 3, 2)
    there = ((cells >= 0) & (cells < grid)).all(-1)
    there[:, 1:] &= step != 0
    box, anchor, which = torch.nonzero(fits[:, :, None] & there[:, None, :], as_tuple=True)
    return Matches(box, anchor, cells[box, which].long())


def yolo_loss(
    levels: Sequence[Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    anchors: Union[Anchors, Sequence[Tensor]],
    height: int,
    width: int,
    box_weight: float = 1.0,
    objectness_weight: float = 1.0,
    class_weight: float = 1.0,
    balance: Optional[Sequence[float]] = None,
) -> Tuple[Tensor, Dict[str, Tensor]]:
    """The loss of a batch, and its parts "box", "objectness" and "classes" without gradients,
    before their weights.

    levels (B, A * (5 + C), h, w); for each image boxes (n, 4), xyxy in pixels of the input of
    height and width, and labels (n), int64 of 0 to C-1; anchors (A, 2) of each level in
    pixels of the input. balance weighs the objectness of each level: 4, 1 and 0.4 for three
    levels, else 1. Without boxes only the objectness has a loss.
    """
    with torch.autocast(levels[0].device.type, enabled=False):
        return _loss(
            levels,
            boxes,
            labels,
            anchors,
            torch.tensor([width, height], dtype=torch.float32, device=levels[0].device),
            (box_weight, objectness_weight, class_weight),
            balance or (BALANCE if len(levels) == 3 else [1.0] * len(levels)),
        )


def _loss(
    levels: Sequence[Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    anchors: Union[Anchors, Sequence[Tensor]],
    size: Tensor,
    weights: Tuple[float, float, float],
    balance: Sequence[float],
) -> Tuple[Tensor, Dict[str, Tensor]]:
    device = size.device
    every = torch.cat([b.reshape(-1, 4) for b in boxes]).to(size)
    label = torch.cat([v.reshape(-1) for v in labels]).to(device)
    image = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)]).to(device)
    parts: Dict[str, List[Tensor]] = {"box": [], "objectness": [], "classes": []}
    for level, level_anchors, level_balance in zip(levels, anchors, balance, strict=True):
        anchor = torch.as_tensor(level_anchors).to(size)
        count, (h, w) = len(anchor), level.shape[2:]
        fields = level.shape[1] // count
        grid = torch.tensor([w, h]).to(size)
        stride = size / grid
        raw = level.float().reshape(-1, count, fields, h, w).permute(0, 1, 3, 4, 2)
        raw = raw.reshape(-1, fields)  # (B * A * h * w, 5 + C)
        target = torch.zeros(len(raw), device=device)
        m = match(every, anchor, grid, stride)
        if len(m.box) > 0:
            row = ((image[m.box] * count + m.anchor) * h + m.cell[:, 1]) * w + m.cell[:, 0]
            chosen = raw.index_select(0, row)
            y = chosen[:, :4].sigmoid()
            xy = (y[:, :2] * 2 - 0.5 + m.cell.to(size)) * stride
            half = ((y[:, 2:] * 2) ** 2 * anchor[m.anchor] / 2).clamp(min=MIN_HALF)
            ciou = complete_box_iou_loss(torch.cat([xy - half, xy + half], dim=1), every[m.box])
            parts["box"].append(ciou.mean())
            # The best of the boxes that share a prediction, whatever their order, and 0 or more.
            target.scatter_reduce_(0, row, 1 - ciou.detach(), "amax")
            wanted = torch.zeros(len(row), fields - 5, device=device)
            wanted.scatter_(1, label[m.box][:, None], 1.0)
            parts["classes"].append(F.binary_cross_entropy_with_logits(chosen[:, 5:], wanted))
        objectness = F.binary_cross_entropy_with_logits(raw[:, 4], target)
        parts["objectness"].append(objectness * level_balance)
    zero = torch.zeros((), device=device)
    sums = {name: torch.stack(values).sum() if values else zero for name, values in parts.items()}
    loss = sums["box"] * weights[0] + sums["objectness"] * weights[1] + sums["classes"] * weights[2]
    return loss, {name: value.detach() for name, value in sums.items()}
