"""Segmentation with a ViT: the subclass, and the composition of a ViT and a head."""

from typing import Any, Dict, Final, List, Tuple

import torch
from torch import Tensor, nn

from models.segmentation_heads import SegmentationHead, segmentation_head
from models.vision_transformer import VisionTransformer

__all__ = [
    "ClassMapModel",
    "CustomSegmentationModel",
    "SegmentationHead",
    "VisionTransformerForSegmentation",
]


class VisionTransformerForSegmentation(VisionTransformer):
    """A ViT with a segmentation head: a 1x1 convolution over its patch tokens, or another
    of segmentation_heads.HEADS.

    forward gives logits (B, C, H, W) at the input's size, unless the head has
    ``upsample=False``; the other methods are the ViT's own.
    """

    takes_blocks: Final[bool]

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
        conv_stem: bool = False,
        head: str = "linear",
        head_options: Dict[str, Any] | None = None,
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
            conv_stem=conv_stem,
        )
        self.num_classes = num_classes
        self.segmentation_head = segmentation_head(
            head,
            embed_dim,
            num_classes,
            patch_size,
            self.num_prefix_tokens,
            depth,
            **(head_options or {}),
        )
        self.head_blocks: List[int] = list(getattr(self.segmentation_head, "input_blocks", []))
        self.takes_blocks = bool(self.head_blocks)

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the segmentation logits and the last block's attention, from one pass."""
        height, width = x.shape[2], x.shape[3]
        if self.takes_blocks:
            x = self.embed(x)
            attn = torch.empty(0)
            outputs: List[Tensor] = []
            for i, block in enumerate(self.blocks):
                if i == self.depth - 1:
                    x, attn = block.forward_with_attention(x)
                else:
                    x = block(x)
                outputs.append(x)
            features = [outputs[i] for i in self.head_blocks]
            return self.segmentation_head(features, height, width), attn
        else:
            tokens, attn = self.forward_features(x)
            return self.segmentation_head(tokens, height, width), attn

    def forward(self, x: Tensor) -> Tensor:
        """Returns the segmentation logits (B, C, H, W)."""
        height, width = x.shape[2], x.shape[3]
        if self.takes_blocks:
            features = self.forward_blocks(x, self.head_blocks)
            return self.segmentation_head(features, height, width)
        else:
            tokens, _ = self.forward_features(x)
            return self.segmentation_head(tokens, height, width)


class CustomSegmentationModel(nn.Module):
    """Any ViT with any segmentation head.

    vit_model has the methods of the reference ViT, as TimmVisionTransformer has them;
    segmentation_head is one of segmentation_heads.
    """

    num_prefix_tokens: Final[int]
    embed_dim: Final[int]
    depth: Final[int]
    num_heads: Final[int]
    takes_blocks: Final[bool]

    def __init__(self, vit_model: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.patch_size: List[int] = [int(v) for v in vit_model.patch_size]
        self.num_prefix_tokens = int(vit_model.num_prefix_tokens)
        self.embed_dim = int(vit_model.embed_dim)
        self.depth = int(vit_model.depth)
        self.num_heads = int(vit_model.num_heads)
        self.num_classes = int(segmentation_head.num_classes)
        self.vit_model = vit_model
        self.segmentation_head = segmentation_head
        self.head_blocks: List[int] = list(getattr(segmentation_head, "input_blocks", []))
        self.takes_blocks = bool(self.head_blocks)

    @torch.jit.export
    def forward_features(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """The ViT's tokens (B, N, D) and last attention (B, heads, N, N)."""
        features, attn = self.vit_model.forward_features(x)
        return features, attn

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the segmentation logits and the last block's attention; a head with blocks
        takes a pass of its own for the attention."""
        if self.takes_blocks:
            return self.forward(x), self.attention(x, -1)
        else:
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

    @torch.jit.export
    def attentions(self, x: Tensor, indices: List[int]) -> List[Tensor]:
        """The attention weights of several blocks, from one pass."""
        outputs: List[Tensor] = self.vit_model.attentions(x, indices)
        return outputs

    @torch.jit.export
    def forward_norm(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) after the ViT's final norm."""
        normed: Tensor = self.vit_model.forward_norm(tokens)
        return normed

    def forward(self, x: Tensor) -> Tensor:
        """Returns the segmentation logits (B, C, H, W)."""
        if self.takes_blocks:
            blocks: List[Tensor] = self.vit_model.forward_blocks(x, self.head_blocks)
            return self.segmentation_head(blocks, x.shape[2], x.shape[3])
        else:
            features, _ = self.vit_model.forward_features(x)
            return self.segmentation_head(features, x.shape[2], x.shape[3])


class ClassMapModel(nn.Module):
    """A segmentation model whose answer is the class of every pixel, as files give it that
    were exported with their argmax: (B, 3, H, W) -> int64 (B, h, w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).argmax(dim=1)
