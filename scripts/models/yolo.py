"""A YOLO-style detector: a ViT's feature pyramid with predictions for anchors in a grid.

The raw predictions are YOLOv5's: for each level (B, A * (5 + C), h, w), of every anchor the
centre x and y, width, height, objectness and one score for each class, before any sigmoid.
``decode`` gives what they mean; the formulas are those of YOLOv5's documentation.
"""

from typing import Final, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from models.detection import pyramid_level
from models.vision_transformer import VisionTransformer, fold_tokens

Anchors = Sequence[Sequence[Tuple[float, float]]]

#: YOLOv5's anchors for COCO, width and height in pixels of a 640x640 input, for strides 8,
#: 16 and 32.
COCO_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def scaled_anchors(side: int) -> List[List[Tuple[float, float]]]:
    """COCO_ANCHORS for a square input of another side."""
    return [[(w * side / 640, h * side / 640) for w, h in level] for level in COCO_ANCHORS]


def decode_level(level: Tensor, anchors: Tensor, height: int, width: int) -> Tensor:
    """Raw (B, A * (5 + C), h, w) and anchors (A, 2) -> (B, A * h * w, 5 + C): centre x, y,
    width, height in pixels of the input, objectness and classes in 0..1."""
    b, h, w = level.shape[0], level.shape[2], level.shape[3]
    count = anchors.shape[0]
    y = level.view(b, count, level.shape[1] // count, h, w).permute(0, 1, 3, 4, 2).sigmoid()
    rows, columns = torch.arange(h).to(y), torch.arange(w).to(y)
    grid = torch.stack(
        [columns[None, :].expand(h, w), rows[:, None].expand(h, w)], dim=-1
    )  # (h, w, 2): x, y
    stride = torch.tensor([width / w, height / h]).to(y)
    xy = (y[..., 0:2] * 2 - 0.5 + grid) * stride
    wh = (y[..., 2:4] * 2) ** 2 * anchors.to(y)[None, :, None, None, :]
    return torch.cat([xy, wh, y[..., 4:]], dim=-1).flatten(1, 3)


def decode(levels: List[Tensor], anchors: List[Tensor], height: int, width: int) -> Tensor:
    """The levels' predictions after one another: (B, N, 5 + C), as decode_level."""
    decoded: List[Tensor] = []
    for i, level in enumerate(levels):
        decoded.append(decode_level(level, anchors[i], height, width))
    return torch.cat(decoded, dim=1)


class VisionTransformerYOLO(nn.Module):
    """A ViT with a YOLO-style head on three levels of its pyramid.

    forward: (B, 3, H, W) -> the raw predictions, finest level first.
    """

    num_classes: Final[int]

    def __init__(
        self,
        vit: VisionTransformer,
        num_classes: int,
        anchors: Anchors = COCO_ANCHORS,
        channels: int = 128,
        scales: Sequence[float] = (2, 1, 0.5),
    ) -> None:
        super().__init__()
        if len(anchors) != len(scales):
            raise ValueError(f"got anchors for {len(anchors)} levels, want {len(scales)}")
        self.vit = vit
        self.num_classes = num_classes
        self.anchors: List[Tensor] = [torch.tensor(level, dtype=torch.float32) for level in anchors]
        self.levels = nn.ModuleList(
            [pyramid_level(vit.embed_dim, channels, scale) for scale in scales]
        )
        self.predict = nn.ModuleList(
            [nn.Conv2d(channels, len(level) * (5 + num_classes), 1) for level in anchors]
        )

    def forward(self, x: Tensor) -> List[Tensor]:
        h, w = self.vit.grid(x)
        grid = fold_tokens(self.vit.tokens(x), self.vit.num_prefix_tokens, h, w)
        outputs: List[Tensor] = []
        for level, predict in zip(self.levels, self.predict):
            outputs.append(predict(level(grid)))
        return outputs


class DecodedYOLO(VisionTransformerYOLO):
    """The same detector whose answer is decoded, in ultralytics' form.

    forward: (B, 3, H, W) -> (B, 4 + C, N): centre x, y, width, height in pixels of the input
    and, for each class, objectness times the class's score.
    """

    def forward(self, x: Tensor) -> Tensor:
        h, w = self.vit.grid(x)
        grid = fold_tokens(self.vit.tokens(x), self.vit.num_prefix_tokens, h, w)
        outputs: List[Tensor] = []
        for level, predict in zip(self.levels, self.predict):
            outputs.append(predict(level(grid)))
        y = decode(outputs, self.anchors, x.shape[2], x.shape[3])
        scores = y[..., 4:5] * y[..., 5:]
        return torch.cat([y[..., :4], scores], dim=-1).transpose(1, 2).contiguous()


class EndToEndYOLO(VisionTransformerYOLO):
    """The same detector whose answer is its best boxes, without suppression.

    forward: (B, 3, H, W) -> (B, top, 6): xyxy in pixels of the input, score, class, best
    first, as ultralytics' end-to-end files give them.
    """

    top: Final[int]

    def __init__(
        self,
        vit: VisionTransformer,
        num_classes: int,
        anchors: Anchors = COCO_ANCHORS,
        channels: int = 128,
        scales: Sequence[float] = (2, 1, 0.5),
        top: int = 100,
    ) -> None:
        super().__init__(vit, num_classes, anchors, channels, scales)
        self.top = top

    def forward(self, x: Tensor) -> Tensor:
        h, w = self.vit.grid(x)
        grid = fold_tokens(self.vit.tokens(x), self.vit.num_prefix_tokens, h, w)
        outputs: List[Tensor] = []
        for level, predict in zip(self.levels, self.predict):
            outputs.append(predict(level(grid)))
        y = decode(outputs, self.anchors, x.shape[2], x.shape[3])
        scores, classes = (y[..., 4:5] * y[..., 5:]).max(dim=-1)
        scores, index = scores.topk(self.top, dim=1)
        classes = classes.gather(1, index).to(y)
        y = y.gather(1, index[..., None].expand(-1, -1, y.shape[2]))
        low, high = y[..., :2] - y[..., 2:4] / 2, y[..., :2] + y[..., 2:4] / 2
        return torch.cat([low, high, scores[..., None], classes[..., None]], dim=-1)


YOLO = {"grid": VisionTransformerYOLO, "decoded": DecodedYOLO, "end2end": EndToEndYOLO}
