"""Segmentation with a ViT: the subclass, the head alone, and the composition of both."""

from typing import Final, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.vision_transformer import VisionTransformer, fold_tokens, to_pair


class SegmentationHead(nn.Module):
    """A 1x1 convolution over patch tokens, brought up to the image's size.

    forward takes the tokens with their prefix tokens still there.
    """

    num_prefix_tokens: Final[int]

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
    ) -> None:
        super().__init__()
        patch = to_pair(patch_size)
        self.patch_size: List[int] = [patch[0], patch[1]]
        self.num_prefix_tokens = num_prefix_tokens
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.conv = nn.Conv2d(embed_dim, num_classes, kernel_size=1)

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """(B, N, D), image height and width in pixels -> logits (B, C, height, width)."""
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        logits = self.conv(fold_tokens(features, self.num_prefix_tokens, h, w))
        return F.interpolate(logits, size=[height, width], mode="bilinear", align_corners=False)


class VisionTransformerForSegmentation(VisionTransformer):
    """A ViT with a 1x1 convolution over its patch tokens.

    forward gives logits (B, C, H, W) at the input's size; the other methods are the
    ViT's own.
    """

    def __init__(
        self,
        num_classes: int,
        img_size: int | Tuple[int, int] = 224,
        patch_size: int | Tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=0,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
        )
        self.num_classes = num_classes
        self.segmentation_head = nn.Conv2d(embed_dim, num_classes, kernel_size=1)

    def segment(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, D) -> logits (B, C, height, width)."""
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        logits = self.segmentation_head(fold_tokens(tokens, self.num_prefix_tokens, h, w))
        return F.interpolate(logits, size=[height, width], mode="bilinear", align_corners=False)

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the segmentation logits and the last block's attention, from one pass."""
        height, width = x.shape[2], x.shape[3]
        x, attn = self.forward_features(x)
        return self.segment(x, height, width), attn

    def forward(self, x: Tensor) -> Tensor:
        """Returns the segmentation logits (B, C, H, W)."""
        height, width = x.shape[2], x.shape[3]
        x, _ = self.forward_features(x)
        return self.segment(x, height, width)


class CustomSegmentationModel(nn.Module):
    """Any ViT with any segmentation head.

    vit_model gives ``forward_features(x) -> (tokens, attn)``; segmentation_head takes
    ``(tokens, height, width)``.
    """

    def __init__(self, vit_model: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.vit_model = vit_model
        self.segmentation_head = segmentation_head

    @torch.jit.export
    def forward_features(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """The ViT's tokens (B, N, D) and last attention (B, heads, N, N)."""
        features, attn = self.vit_model.forward_features(x)
        return features, attn

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the segmentation logits and the last block's attention, from one pass."""
        features, attn = self.vit_model.forward_features(x)
        return self.segmentation_head(features, x.shape[2], x.shape[3]), attn

    @torch.jit.export
    def forward_blocks(self, x: Tensor, indices: List[int]) -> List[Tensor]:
        """The ViT's block outputs, before the final norm."""
        outputs: List[Tensor] = self.vit_model.forward_blocks(x, indices)
        return outputs

    @torch.jit.export
    def attention(self, x: Tensor, block: int) -> Tensor:
        """One block's attention weights (B, heads, N, N)."""
        attn: Tensor = self.vit_model.attention(x, block)
        return attn

    def forward(self, x: Tensor) -> Tensor:
        """Returns the segmentation logits (B, C, H, W)."""
        features, _ = self.vit_model.forward_features(x)
        return self.segmentation_head(features, x.shape[2], x.shape[3])
