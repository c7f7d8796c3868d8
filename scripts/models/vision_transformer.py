"""The reference Vision Transformer.

Plain PyTorch that ``torch.jit.script`` compiles as it stands. Parameter names are
those of timm and DINO (``cls_token``, ``pos_embed``, ``patch_embed.proj``,
``blocks.N.attn.qkv`` ...), so their checkpoints load without renaming.

Shapes: B batch, N tokens (prefix tokens first, then the patches row by row),
D embed_dim, K classes.
"""

from typing import Dict, Final, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_pair(value: int | Tuple[int, int]) -> Tuple[int, int]:
    """Returns (height, width) from one number or a pair."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def fold_tokens(tokens: Tensor, prefix: int, height: int, width: int) -> Tensor:
    """Drops the prefix tokens and folds the patches: (B, N, D) -> (B, D, height, width).

    height and width count patches, not pixels.
    """
    patches = tokens.shape[1] - prefix
    if patches != height * width:
        raise ValueError(
            "{} tokens with {} prefix tokens do not fill a grid of {}x{} patches".format(
                tokens.shape[1], prefix, height, width
            )
        )
    folded = tokens[:, prefix:].transpose(1, 2)
    return folded.reshape(tokens.shape[0], tokens.shape[2], height, width)


def resample_pos_embed(pos_embed: Tensor, prefix: int, old: List[int], new: List[int]) -> Tensor:
    """Resamples the grid part of a position embedding, by timm's rule.

    Bicubic with antialias=True, in float32; returned untouched when the grid is the same.
    """
    if old[0] == new[0] and old[1] == new[1]:
        return pos_embed
    head = pos_embed[:, :prefix]
    grid = pos_embed[:, prefix:]
    dim = pos_embed.shape[2]
    grid = grid.reshape(1, old[0], old[1], dim).permute(0, 3, 1, 2).to(torch.float32)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
    grid = grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], dim).to(pos_embed.dtype)
    return torch.cat([head, grid], dim=1)


def convolutional_stem(patch_size: Tuple[int, int], in_chans: int, embed_dim: int) -> nn.Sequential:
    """3x3 convolutions that end at the grid of the patches, instead of one patch-sized step
    (Xiao et al., Early Convolutions Help Transformers See Better, 2021): each halves the
    size and doubles the channels, the first ones are followed by one at that size."""
    halvings = patch_size[0].bit_length() - 1
    if patch_size != (2**halvings, 2**halvings) or halvings < 1:
        raise ValueError(
            f"patch_size {patch_size}: a stem wants a square whose side is 2, 4, 8 ..."
        )
    layers: List[nn.Module] = []
    width = in_chans
    for i in range(halvings):
        wider = 32 * 2**i
        for stride in (2, 1) if i < 2 else (2,):
            conv = nn.Conv2d(width, wider, 3, stride, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.GroupNorm(wider // 16, wider), nn.ReLU()]
            width = wider
    return nn.Sequential(*layers, nn.Conv2d(width, embed_dim, 1))


class PatchEmbed(nn.Module):
    """Cuts an image into patches and embeds each: (B, C, H, W) -> (B, H/p * W/p, D)."""

    def __init__(
        self, patch_size: Tuple[int, int], in_chans: int, embed_dim: int, stem: bool = False
    ) -> None:
        super().__init__()
        if stem:
            self.proj = convolutional_stem(patch_size, in_chans, embed_dim)
        else:
            self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, with the weights to be had on request."""

    num_heads: Final[int]
    head_dim: Final[int]
    scale: Final[float]

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Returns query, key and value, each (B, heads, N, head_dim)."""
        qkv = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def merge(self, x: Tensor) -> Tensor:
        """Joins the heads again: (B, heads, N, head_dim) -> (B, N, D)."""
        x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], self.num_heads * self.head_dim)
        return self.proj(x)

    def weights(self, x: Tensor) -> Tensor:
        """Returns the attention weights after softmax, (B, heads, N, N)."""
        q, k, _ = self.project(x)
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)

    def forward_with_weights(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the output (B, N, D) and the weights it was made with (B, heads, N, N)."""
        q, k, v = self.project(x)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.merge(attn @ v), attn

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x)
        return self.merge(F.scaled_dot_product_attention(q, k, v))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A transformer block with normalisation before each part."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def attention(self, x: Tensor) -> Tensor:
        """Returns this block's attention weights, (B, heads, N, N)."""
        return self.attn.weights(self.norm1(x))

    def forward_with_attention(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Returns the block's output and its attention weights."""
        y, attn = self.attn.forward_with_weights(self.norm1(x))
        x = x + y
        return x + self.mlp(self.norm2(x)), attn

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """A conventional ViT: class token, learned positions, pre-norm blocks.

    Any height and width that are multiples of the patch size work; the position
    embedding is resampled when the grid differs from the one it was made for.

    Args:
        img_size: (height, width) of the grid that pos_embed is stored for, in pixels.
        patch_size: (height, width) of a patch, in pixels.
        in_chans: channels of the image.
        num_classes: classes of the head; 0 leaves the class token as it is.
        embed_dim, depth, num_heads, mlp_ratio, qkv_bias: as in timm.
        conv_stem: embeds the patches by a few 3x3 convolutions instead of one linear layer.
    """

    num_prefix_tokens: Final[int]
    embed_dim: Final[int]
    depth: Final[int]
    num_heads: Final[int]

    def __init__(
        self,
        img_size: int | Tuple[int, int] = 224,
        patch_size: int | Tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        conv_stem: bool = False,
    ) -> None:
        super().__init__()
        size, patch = to_pair(img_size), to_pair(patch_size)
        if size[0] % patch[0] != 0 or size[1] % patch[1] != 0:
            raise ValueError(f"img_size {size} is not a multiple of patch_size {patch}")
        self.img_size: List[int] = [size[0], size[1]]
        self.patch_size: List[int] = [patch[0], patch[1]]
        self.grid_size: List[int] = [size[0] // patch[0], size[1] // patch[1]]
        self.num_classes = num_classes
        self.num_prefix_tokens = 1
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads

        self.patch_embed = PatchEmbed(patch, in_chans, embed_dim, conv_stem)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        count = 1 + self.grid_size[0] * self.grid_size[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, count, embed_dim))
        self.blocks = nn.ModuleList(
            [Block(embed_dim, num_heads, mlp_ratio, qkv_bias) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()

        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_weights)

    def grid(self, x: Tensor) -> Tuple[int, int]:
        """Returns how many patches the image has down and across."""
        height, width = x.shape[2], x.shape[3]
        if height % self.patch_size[0] != 0 or width % self.patch_size[1] != 0:
            raise ValueError(
                "image is {}x{}, want sides that are multiples of the patch {}x{}".format(
                    height, width, self.patch_size[0], self.patch_size[1]
                )
            )
        return height // self.patch_size[0], width // self.patch_size[1]

    def embed(self, x: Tensor) -> Tensor:
        """Returns the tokens that enter the first block, (B, N, D)."""
        h, w = self.grid(x)
        pos = resample_pos_embed(self.pos_embed, self.num_prefix_tokens, self.grid_size, [h, w])
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens + pos

    def tokens(self, x: Tensor) -> Tensor:
        """Returns the tokens after the final norm, without attention weights."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

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
        return self.head(x[:, 0]), attn

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
        for i, layer in enumerate(self.blocks):
            if i in wanted:
                found[i] = layer.attention(x)
            if i < last:
                x = layer(x)
        return [found[i] for i in wanted]

    @torch.jit.export
    def forward_norm(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D), as forward_blocks gives them, after the final norm."""
        return self.norm(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, K)."""
        return self.head(self.tokens(x)[:, 0])


def init_weights(module: nn.Module) -> None:
    """timm's default initialisation of a ViT's layers."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
