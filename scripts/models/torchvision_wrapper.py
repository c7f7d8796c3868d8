"""Any torchvision ViT, with the methods of the reference ViT."""

from typing import Dict, Final, List, Tuple

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionModel


class BlockWithAttention(EncoderBlock):
    """A torchvision block whose attention weights can be had; forward is torchvision's."""

    def attention(self, x: Tensor) -> Tensor:
        """Returns this block's attention weights, (B, heads, N, N)."""
        _, attn = self.forward_with_attention(x)
        return attn

    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the block's output and its attention weights."""
        y = self.ln_1(x)
        y, attn = self.self_attention(y, y, y, need_weights=True, average_attn_weights=False)
        y = self.dropout(y) + x
        weights = torch.jit._unwrap_optional(attn)
        return y + self.mlp(self.ln_2(y)), weights


class TorchvisionVisionTransformer(nn.Module):
    """Wraps a torchvision VisionTransformer; the state dict keeps its names under ``vit.``.

    Images have the model's own size: torchvision resamples positions only when it loads
    weights.
    """

    num_prefix_tokens: Final[int]
    embed_dim: Final[int]
    depth: Final[int]
    num_heads: Final[int]

    def __init__(self, vit: TorchvisionModel) -> None:
        super().__init__()
        if not isinstance(vit, TorchvisionModel):
            raise TypeError(f"got {type(vit).__name__}, want a torchvision VisionTransformer")
        for block in vit.encoder.layers:
            block.__class__ = BlockWithAttention
        self.patch_size: List[int] = [int(vit.patch_size), int(vit.patch_size)]
        self.num_prefix_tokens = 1
        self.embed_dim = int(vit.hidden_dim)
        self.depth = len(vit.encoder.layers)
        self.num_heads = int(vit.encoder.layers[0].num_heads)
        self.num_classes = int(vit.num_classes)
        self.vit = vit

    def embed(self, x: Tensor) -> Tensor:
        """Returns the tokens that enter the first block, (B, N, D)."""
        x = self.vit._process_input(x)
        x = torch.cat([self.vit.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.vit.encoder.dropout(x + self.vit.encoder.pos_embedding)

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
        for i, block in enumerate(self.vit.encoder.layers):
            if i == self.depth - 1:
                x, attn = block.forward_with_attention(x)
            else:
                x = block(x)
        return self.vit.encoder.ln(x), attn

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the logits (B, K) and the last block's attention, from one pass."""
        x, attn = self.forward_features(x)
        return self.vit.heads(x[:, 0]), attn

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
        for i, block in enumerate(self.vit.encoder.layers):
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
        for i, layer in enumerate(self.vit.encoder.layers):
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
        for i, layer in enumerate(self.vit.encoder.layers):
            if i in wanted:
                found[i] = layer.attention(x)
            if i < last:
                x = layer(x)
        return [found[i] for i in wanted]

    @torch.jit.export
    def forward_norm(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D), as forward_blocks gives them, after the final norm."""
        return self.vit.encoder.ln(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, K), by torchvision's own forward."""
        return self.vit(x)
