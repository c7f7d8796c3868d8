"""Detection with a ViT: torchvision's detectors over a simple feature pyramid.

Faster R-CNN, Mask R-CNN and RetinaNet, each from a ViT by one function.

Weights may be bfloat16 (``model.to(torch.bfloat16)``): the layers then compute in it, while
anchors, boxes, RoIAlign and NMS stay in float32, which is what torchvision's operators
support. In float32 the casts do nothing.
"""

from typing import Any, Dict, List, Sequence, Tuple, Type

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
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


class MaskHead(MaskRCNNHeads):
    """torchvision's MaskRCNNHeads, in the dtype of its weights."""

    def __init__(self, in_channels: int, layers: Sequence[int]) -> None:
        super().__init__(in_channels, list(layers), dilation=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self[0][0].weight.dtype)
        for layer in self:
            x = layer(x)
        return x


class MaskPredictor(MaskRCNNPredictor):
    """torchvision's MaskRCNNPredictor, whose logits are float32."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mask_fcn_logits(self.relu(self.conv5_mask(x))).float()


class OneStageHead(RetinaNetHead):
    """torchvision's RetinaNetHead, which takes and gives float32 whatever its weights are."""

    def forward(self, x: List[Tensor]) -> Dict[str, Tensor]:
        x = [feature.to(self.classification_head.cls_logits.weight.dtype) for feature in x]
        return {
            "cls_logits": self.classification_head(x).float(),
            "bbox_regression": self.regression_head(x).float(),
        }


def two_stage(
    kind: Type[FasterRCNN],
    vit: VisionTransformer,
    num_classes: int,
    out_channels: int,
    scales: Sequence[float],
    anchor_sizes: Sequence[int],
    representation_size: int,
    rpn_top_n: int,
    **options: Any,
) -> Any:
    """Builds Faster R-CNN or Mask R-CNN over a ViT; options are further ones of the class."""
    if len(anchor_sizes) != len(scales) + 1:
        raise ValueError(f"got {len(anchor_sizes)} anchor sizes, want {len(scales) + 1}")
    anchors = AnchorGenerator(
        sizes=tuple((size,) for size in anchor_sizes),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(anchor_sizes),
    )
    pool = MultiScaleRoIAlign(
        featmap_names=[str(i) for i in range(len(scales))], output_size=7, sampling_ratio=2
    )
    model = kind(
        SimpleFeaturePyramid(vit, out_channels, scales),
        num_classes=None,
        rpn_anchor_generator=anchors,
        rpn_head=ProposalHead(out_channels, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=2 * rpn_top_n,
        rpn_pre_nms_top_n_test=rpn_top_n,
        rpn_post_nms_top_n_train=rpn_top_n,
        rpn_post_nms_top_n_test=rpn_top_n,
        box_roi_pool=pool,
        box_head=BoxHead(out_channels * 49, representation_size),
        box_predictor=BoxPredictor(representation_size, num_classes),
        **options,
    )
    # Else a scripted file writes a line about its return type to stderr at its first call.
    model._has_warned = True
    return model


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
    return two_stage(
        FasterRCNN,
        vit,
        num_classes,
        out_channels,
        scales,
        anchor_sizes,
        representation_size,
        rpn_top_n,
        min_size=min_size,
        max_size=max_size,
        image_mean=list(image_mean),
        image_std=list(image_std),
        box_score_thresh=box_score_thresh,
        box_detections_per_img=box_detections_per_img,
        **options,
    )


def vit_mask_rcnn(
    vit: VisionTransformer,
    num_classes: int,
    out_channels: int = 256,
    scales: Sequence[float] = (4, 2, 1, 0.5),
    anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
    representation_size: int = 1024,
    mask_layers: Sequence[int] = (256, 256, 256, 256),
    min_size: int = 320,
    max_size: int = 640,
    image_mean: Tuple[float, float, float] = (0.485, 0.456, 0.406),
    image_std: Tuple[float, float, float] = (0.229, 0.224, 0.225),
    rpn_top_n: int = 300,
    box_score_thresh: float = 0.05,
    box_detections_per_img: int = 100,
    **options: Any,
) -> MaskRCNN:
    """Builds torchvision's MaskRCNN over a ViT, as vit_faster_rcnn; mask_layers are the
    channels of the mask head's convolutions."""
    width = mask_layers[-1]
    pool = MultiScaleRoIAlign(
        featmap_names=[str(i) for i in range(len(scales))], output_size=14, sampling_ratio=2
    )
    return two_stage(
        MaskRCNN,
        vit,
        num_classes,
        out_channels,
        scales,
        anchor_sizes,
        representation_size,
        rpn_top_n,
        mask_roi_pool=pool,
        mask_head=MaskHead(out_channels, mask_layers),
        mask_predictor=MaskPredictor(width, width, num_classes),
        min_size=min_size,
        max_size=max_size,
        image_mean=list(image_mean),
        image_std=list(image_std),
        box_score_thresh=box_score_thresh,
        box_detections_per_img=box_detections_per_img,
        **options,
    )


def vit_retinanet(
    vit: VisionTransformer,
    num_classes: int,
    out_channels: int = 256,
    scales: Sequence[float] = (2, 1, 0.5),
    anchor_sizes: Sequence[int] = (32, 64, 128, 256),
    min_size: int = 320,
    max_size: int = 640,
    image_mean: Tuple[float, float, float] = (0.485, 0.456, 0.406),
    image_std: Tuple[float, float, float] = (0.229, 0.224, 0.225),
    score_thresh: float = 0.05,
    detections_per_img: int = 100,
    **options: Any,
) -> RetinaNet:
    """Builds torchvision's RetinaNet over a ViT; options are further ones of RetinaNet.

    num_classes counts label 0, which torchvision leaves unused. Each level of the pyramid,
    the extra pooled one included, has one anchor size in three octaves and three ratios.
    """
    if len(anchor_sizes) != len(scales) + 1:
        raise ValueError(f"got {len(anchor_sizes)} anchor sizes, want {len(scales) + 1}")
    anchors = AnchorGenerator(
        sizes=tuple(tuple(int(s * 2 ** (i / 3)) for i in range(3)) for s in anchor_sizes),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(anchor_sizes),
    )
    model = RetinaNet(
        SimpleFeaturePyramid(vit, out_channels, scales),
        num_classes,
        min_size=min_size,
        max_size=max_size,
        image_mean=list(image_mean),
        image_std=list(image_std),
        anchor_generator=anchors,
        head=OneStageHead(out_channels, anchors.num_anchors_per_location()[0], num_classes),
        score_thresh=score_thresh,
        detections_per_img=detections_per_img,
        **options,
    )
    model._has_warned = True
    return model
