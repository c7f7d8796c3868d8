"""Detection with a ViT: torchvision's Faster R-CNN over a simple feature pyramid.

Weights may be bfloat16 (``model.to(torch.bfloat16)``): the layers then compute in it, while
anchors, boxes, RoIAlign and NMS stay in float32, which is what torchvision's operators
support. In float32 the casts do nothing.
"""

from typing import Any, Dict, List, Sequence, Tuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models.vision_transformer import VisionTransformer, fold_tokens


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pyramid_level(dim: int, out_channels: int, scale: float) -> nn.Sequential:
    """One level of the pyramid; scale is relative to the ViT's own grid: 4, 2, 1 or 0.5."""
    layers: List[nn.Module] = []
    width = dim
    if scale == 4:
        layers += [
            nn.ConvTranspose2d(dim, dim // 2, kernel_size=2, stride=2),
            ChannelLayerNorm(dim // 2),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 2, dim // 4, kernel_size=2, stride=2),
        ]
        width = dim // 4
    elif scale == 2:
        layers += [nn.ConvTranspose2d(dim, dim // 2, kernel_size=2, stride=2)]
        width = dim // 2
    elif scale == 0.5:
        layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
    elif scale != 1:
        raise ValueError(f"scale {scale}: want 4, 2, 1 or 0.5")
    layers += [
        nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
        ChannelLayerNorm(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        ChannelLayerNorm(out_channels),
    ]
    return nn.Sequential(*layers)


class SimpleFeaturePyramid(nn.Module):
    """A ViT and ViTDet's simple feature pyramid over its last tokens.

    forward: (B, 3, H, W) -> {"0": (B, C, ...), "1": ..., "pool": ...}, finest first.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
    ) -> None:
        super().__init__()
        self.vit = vit
        self.out_channels = out_channels
        self.levels = nn.ModuleList(
            [pyramid_level(vit.embed_dim, out_channels, scale) for scale in scales]
        )

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        x = x.to(self.vit.cls_token.dtype)
        h, w = self.vit.grid(x)
        grid = fold_tokens(self.vit.tokens(x), self.vit.num_prefix_tokens, h, w)
        features: Dict[str, Tensor] = {}
        last = grid
        for i, level in enumerate(self.levels):
            last = level(grid)
            features[str(i)] = last.float()
        features["pool"] = F.max_pool2d(last.float(), kernel_size=1, stride=2, padding=0)
        return features


class ProposalHead(RPNHead):
    """torchvision's RPNHead, which takes and gives float32 whatever its weights are."""

    def forward(self, x: List[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        logits: List[Tensor] = []
        deltas: List[Tensor] = []
        for feature in x:
            t = self.conv(feature.to(self.cls_logits.weight.dtype))
            logits.append(self.cls_logits(t).float())
            deltas.append(self.bbox_pred(t).float())
        return logits, deltas


class BoxHead(TwoMLPHead):
    """torchvision's TwoMLPHead, in the dtype of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(start_dim=1).to(self.fc6.weight.dtype)
        return F.relu(self.fc7(F.relu(self.fc6(x))))


class BoxPredictor(nn.Module):
    """torchvision's FastRCNNPredictor: class scores and one box for each class, as float32."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return self.cls_score(x).float(), self.bbox_pred(x).float()


def vit_faster_rcnn(
    vit: VisionTransformer,
    num_classes: int,
    out_channels: int = 256,
    scales: Sequence[float] = (4, 2, 1, 0.5),
    anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
    representation_size: int = 1024,
    min_size: int = 320,
    max_size: int = 640,
    image_mean: Tuple[float, float, float] = (0.485, 0.456, 0.406),
    image_std: Tuple[float, float, float] = (0.229, 0.224, 0.225),
    rpn_top_n: int = 300,
    box_score_thresh: float = 0.05,
    box_detections_per_img: int = 100,
    **options: Any,
) -> FasterRCNN:
    """Builds torchvision's FasterRCNN over a ViT; options are further ones of FasterRCNN.

    num_classes counts the background, label 0. One anchor size for each level of the
    pyramid and one for the extra pooled level.
    """
    if len(anchor_sizes) != len(scales) + 1:
        raise ValueError(f"got {len(anchor_sizes)} anchor sizes, want {len(scales) + 1}")
    backbone = SimpleFeaturePyramid(vit, out_channels, scales)
    anchors = AnchorGenerator(
        sizes=tuple((size,) for size in anchor_sizes),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(anchor_sizes),
    )
    pool = MultiScaleRoIAlign(
        featmap_names=[str(i) for i in range(len(scales))], output_size=7, sampling_ratio=2
    )
    model = FasterRCNN(
        backbone,
        num_classes=None,
        min_size=min_size,
        max_size=max_size,
        image_mean=list(image_mean),
        image_std=list(image_std),
        rpn_anchor_generator=anchors,
        rpn_head=ProposalHead(out_channels, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=2 * rpn_top_n,
        rpn_pre_nms_top_n_test=rpn_top_n,
        rpn_post_nms_top_n_train=rpn_top_n,
        rpn_post_nms_top_n_test=rpn_top_n,
        box_roi_pool=pool,
        box_head=BoxHead(out_channels * 49, representation_size),
        box_predictor=BoxPredictor(representation_size, num_classes),
        box_score_thresh=box_score_thresh,
        box_detections_per_img=box_detections_per_img,
        **options,
    )
    # Else a scripted file writes a line about its return type to stderr at its first call.
    model._has_warned = True
    return model
