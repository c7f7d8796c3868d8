"""Any timm ViT by name, with the methods of the reference ViT."""

from typing import Any, Dict, Final, List, Tuple

import timm
import torch
from timm.layers import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer as TimmModel
from torch import Tensor, nn


class BlockWithAttention(TimmBlock):
    """A timm block whose attention weights can be had.

    It computes what timm's own unfused path computes; forward is timm's. Blocks are made
    by timm and then given this class, so parameters keep their names and exist once.
    """

    def weights_and_value(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns attention weights (B, heads, N, N) and values (B, heads, N, head_dim)."""
        x = self.norm1(x)
        heads, dim = self.attn.num_heads, self.attn.head_dim
        qkv = self.attn.qkv(x).reshape(x.shape[0], x.shape[1], 3, heads, dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.attn.q_norm(q), self.attn.k_norm(k)
        return ((q * self.attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1), v

    def attention(self, x: Tensor) -> Tensor:
        """Returns this block's attention weights, (B, heads, N, N)."""
        attn, _ = self.weights_and_value(x)
        return attn

    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the block's output and its attention weights."""
        attn, v = self.weights_and_value(x)
        y = (attn @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], self.attn.attn_dim)
        x = x + self.ls1(self.attn.proj(self.attn.norm(y)))
        return x + self.ls2(self.mlp(self.norm2(x))), attn


def expose_attention(block: nn.Module) -> None:
    """Turns one of timm's plain blocks into a BlockWithAttention, in place."""
    attn = getattr(block, "attn", None)
    if type(block) is not TimmBlock or type(attn) is not TimmAttention:
        raise TypeError(
            f"got {type(block).__name__} with {type(attn).__name__}, "
            "want timm's plain Block with Attention"
        )
    if getattr(attn, "gate", None) is not None:
        raise TypeError("gated attention is not supported")
    block.__class__ = BlockWithAttention


class TimmVisionTransformer(nn.Module):
    """Wraps a timm VisionTransformer; the state dict keeps timm's names under ``vit.``.

    DeiT's distilled models (two prefix tokens) and register tokens are included; the
    prefix tokens come first in every (B, N, D).
    """

    num_prefix_tokens: Final[int]
    embed_dim: Final[int]
    depth: Final[int]
    num_heads: Final[int]

    def __init__(self, vit: TimmModel) -> None:
        super().__init__()
        if not isinstance(vit, TimmModel):
            raise TypeError(f"got {type(vit).__name__}, want a timm VisionTransformer")
        for block in vit.blocks:
            expose_attention(block)
        patch = vit.patch_embed.patch_size
        self.patch_size: List[int] = [int(patch[0]), int(patch[1])]
        self.num_prefix_tokens = int(vit.num_prefix_tokens)
        self.embed_dim = int(vit.embed_dim)
        self.depth = len(vit.blocks)
        self.num_heads = int(vit.blocks[0].attn.num_heads)
        self.num_classes = int(vit.num_classes)
        self.vit = vit

    def embed(self, x: Tensor) -> Tensor:
        """Returns the tokens that enter the first block, (B, N, D)."""
        return self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(x)))

    def block_index(self, block: int) -> int:
        """Resolves a negative block index and checks the range."""
        index = block + self.depth if block < 0 else block
        if index < 0 or index >= self.depth:
            raise IndexError(
                "block {} is out of range for a model of {} blocks".format(block, self.depth)
            )
        return index

    @torch.jit.export
    def forward_features(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the tokens after the final norm (B, N, D) and the last block's attention
        weights (B, heads, N, N)."""
        x = self.embed(x)
        attn = torch.empty(0)
        for i, block in enumerate(self.vit.blocks):
            if i == self.depth - 1:
                x, attn = block.forward_with_attention(x)
            else:
                x = block(x)
        return self.vit.norm(x), attn

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the logits (B, K) and the last block's attention, from one pass."""
        x, attn = self.forward_features(x)
        return self.vit.forward_head(x), attn

    @torch.jit.export
    def forward_blocks(self, x: Tensor, indices: List[int]) -> List[Tensor]:
        """Returns the tokens (B, N, D) that leave the blocks named, before the final norm,
        in the order of indices; negative indices count from the end."""
        wanted: List[int] = []
        last = -1
        for index in indices:
            resolved = self.block_index(index)
            wanted.append(resolved)
            last = max(last, resolved)
        x = self.embed(x)
        outputs: List[Tensor] = []
        for i, block in enumerate(self.vit.blocks):
            if i <= last:
                x = block(x)
                outputs.append(x)
        return [outputs[i] for i in wanted]

    @torch.jit.export
    def attention(self, x: Tensor, block: int) -> Tensor:
        """Returns one block's attention weights (B, heads, N, N)."""
        index = self.block_index(block)
        x = self.embed(x)
        attn = torch.empty(0)
        for i, layer in enumerate(self.vit.blocks):
            if i < index:
                x = layer(x)
            elif i == index:
                attn = layer.attention(x)
        return attn

    @torch.jit.export
    def attentions(self, x: Tensor, indices: List[int]) -> List[Tensor]:
        """Returns the attention weights (B, heads, N, N) of the blocks named, in the order of
        indices, from one pass; bit for bit what attention gives one by one."""
        wanted: List[int] = []
        last = -1
        for index in indices:
            resolved = self.block_index(index)
            wanted.append(resolved)
            last = max(last, resolved)
        x = self.embed(x)
        found = torch.jit.annotate(Dict[int, Tensor], {})
        for i, layer in enumerate(self.vit.blocks):
            if i in wanted:
                found[i] = layer.attention(x)
            if i < last:
                x = layer(x)
        return [found[i] for i in wanted]

    @torch.jit.export
    def forward_norm(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D), as forward_blocks gives them, after the final norm."""
        return self.vit.norm(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, K), by timm's own forward."""
        return self.vit(x)


def create_timm_vit(name: str, **kwargs: Any) -> TimmVisionTransformer:
    """Makes a timm ViT by name, without weights; dynamic_img_size is tried first.

    kwargs go to timm.create_model (img_size, depth, num_classes ...).
    """
    kwargs.setdefault("dynamic_img_size", True)
    try:
        model = timm.create_model(name, pretrained=False, **kwargs)
        return TimmVisionTransformer(model.eval())
    except (RuntimeError, TypeError) as error:
        raise SystemExit(f"timm cannot make a ViT named {name}: {error}") from None
