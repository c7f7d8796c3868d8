"""A ViT of traced parts, with the methods of the reference ViT."""

from typing import Dict, Final, List, Sequence, Tuple

import torch
from torch import Tensor, nn


class TracedVisionTransformer(nn.Module):
    """Puts traced parts together: models that do not script get every method so.

    embed: (B, 3, H, W) -> tokens (B, N, D) that enter the first block. Each of blocks has
    forward, (B, N, D) -> (B, N, D), and forward_with_attention, which gives the block's
    attention weights (B, heads, N, N) too. norm: the final norm. head: tokens after the norm
    -> logits (B, K).
    """

    num_prefix_tokens: Final[int]
    embed_dim: Final[int]
    depth: Final[int]
    num_heads: Final[int]

    def __init__(
        self,
        embed: nn.Module,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        head: nn.Module,
        patch_size: Tuple[int, int],
        num_prefix_tokens: int,
        embed_dim: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.patch_size: List[int] = [patch_size[0], patch_size[1]]
        self.num_prefix_tokens = num_prefix_tokens
        self.embed_dim = embed_dim
        self.depth = len(blocks)
        self.num_heads = num_heads
        self.embeddings = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """Returns the tokens that enter the first block, (B, N, D)."""
        height, width = x.shape[2], x.shape[3]
        if height % self.patch_size[0] != 0 or width % self.patch_size[1] != 0:
            raise ValueError(
                "image is {}x{}, want sides that are multiples of the patch {}x{}".format(
                    height, width, self.patch_size[0], self.patch_size[1]
                )
            )
        tokens: Tensor = self.embeddings(x)
        return tokens

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
        for i, block in enumerate(self.blocks):
            if i == self.depth - 1:
                x, attn = block.forward_with_attention(x)
            else:
                x = block(x)
        return self.norm(x), attn

    @torch.jit.export
    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the logits (B, K) and the last block's attention, from one pass."""
        x, attn = self.forward_features(x)
        return self.head(x), attn

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
        for i, block in enumerate(self.blocks):
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
        for i, layer in enumerate(self.blocks):
            if i < index:
                x = layer(x)
            elif i == index:
                x, attn = layer.forward_with_attention(x)
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
        for i, layer in enumerate(self.blocks):
            if i in wanted:
                _, attn = layer.forward_with_attention(x)
                found[i] = attn
            if i < last:
                x = layer(x)
        return [found[i] for i in wanted]

    @torch.jit.export
    def forward_norm(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D), as forward_blocks gives them, after the final norm."""
        return self.norm(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, K)."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
