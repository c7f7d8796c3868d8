"""Segmentation heads on a ViT's tokens.

Every head takes the tokens with their prefix tokens (class, distillation, registers) still
in front, drops them and folds the rest to the grid of patches. forward is

    forward(features: Tensor, height: int, width: int)        tokens (B, N, D) after the norm
    forward(features: List[Tensor], height: int, width: int)  heads with ``input_blocks``: the
                                                              tokens that leave those blocks

and gives logits (B, C, height, width), height and width being the input's in pixels. With
``upsample=False`` the logits stay at the size that the head computes them at.
"""

from typing import Any, Dict, Final, List, Sequence, Tuple, Type

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from models.vision_transformer import Block, fold_tokens, to_pair


def resize_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize with align_corners=False; nothing where the size is right already."""
    if logits.shape[2] == height and logits.shape[3] == width:
        return logits
    return F.interpolate(logits, size=[height, width], mode="bilinear", align_corners=False)


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution without bias, batch norm and ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SegmentationHead(nn.Conv2d):
    """A 1x1 convolution over patch tokens, brought up to the image's size.

    Its own parameters are weight and bias, as those of the nn.Conv2d that it is.
    """

    num_prefix_tokens: Final[int]
    upsample: Final[bool]

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        upsample: bool = True,
    ) -> None:
        super().__init__(embed_dim, num_classes, kernel_size=1)
        self.patch_size: List[int] = list(to_pair(patch_size))
        self.num_prefix_tokens = num_prefix_tokens
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.upsample = upsample

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, D) -> logits (B, C, height, width)."""
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        grid = fold_tokens(features, self.num_prefix_tokens, h, w)
        logits = self._conv_forward(grid, self.weight, self.bias)
        if self.upsample:
            logits = F.interpolate(
                logits, size=[height, width], mode="bilinear", align_corners=False
            )
        return logits


class DecoderHead(nn.Module):
    """A head whose ``decode`` works on the grid of patches, (B, D, h, w).

    decode is any module from that grid to logits of some size.
    """

    num_prefix_tokens: Final[int]
    upsample: Final[bool]

    def __init__(
        self,
        decode: nn.Module,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int],
        num_prefix_tokens: int,
        upsample: bool,
    ) -> None:
        super().__init__()
        self.patch_size: List[int] = list(to_pair(patch_size))
        self.num_prefix_tokens = num_prefix_tokens
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.upsample = upsample
        self.decode = decode

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, D) -> logits (B, C, height, width)."""
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        logits = self.decode(fold_tokens(features, self.num_prefix_tokens, h, w))
        return resize_logits(logits, height, width) if self.upsample else logits


class TransposedHead(DecoderHead):
    """One transposed convolution whose kernel and stride are the patch: its output has the
    input's size, (h - 1) * p + (p - 1) + 1 = h * p."""

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
    ) -> None:
        patch = to_pair(patch_size)
        decode = nn.ConvTranspose2d(embed_dim, num_classes, kernel_size=patch, stride=patch)
        super().__init__(decode, embed_dim, num_classes, patch, num_prefix_tokens, False)


class ProgressiveHead(DecoderHead):
    """Transposed convolutions that double the size until it is the input's, each with batch
    norm and GELU and half the channels of the one before, then a 1x1 convolution.

    The patch is a power of two.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        channels: int = 128,
        min_channels: int = 16,
    ) -> None:
        patch = to_pair(patch_size)
        steps = patch[0].bit_length() - 1
        if patch[0] != patch[1] or patch[0] != 1 << steps:
            raise ValueError(f"patch {patch[0]}x{patch[1]}: want a square one of a power of two")
        layers: List[nn.Module] = []
        width = embed_dim
        for _ in range(steps):
            layers += [
                nn.ConvTranspose2d(width, channels, kernel_size=2, stride=2),
                nn.BatchNorm2d(channels),
                nn.GELU(),
            ]
            width, channels = channels, max(channels // 2, min_channels)
        layers.append(nn.Conv2d(width, num_classes, kernel_size=1))
        decode = nn.Sequential(*layers)
        super().__init__(decode, embed_dim, num_classes, patch, num_prefix_tokens, False)


class FCNDecoderHead(DecoderHead):
    """torchvision's FCNHead over the grid of patches, then bilinear."""

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        upsample: bool = True,
    ) -> None:
        decode = FCNHead(embed_dim, num_classes)
        super().__init__(decode, embed_dim, num_classes, patch_size, num_prefix_tokens, upsample)


class SETRPUPHead(DecoderHead):
    """SETR's progressive upsampling: four times a 3x3 convolution with batch norm and ReLU
    and twice the size by bilinear resize, then a 1x1 convolution (Zheng et al. 2021)."""

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        channels: int = 256,
        upsample: bool = True,
    ) -> None:
        layers: List[nn.Module] = []
        width = embed_dim
        for _ in range(4):
            layers += [
                conv_bn_relu(width, channels),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            ]
            width = channels
        layers.append(nn.Conv2d(width, num_classes, kernel_size=1))
        decode = nn.Sequential(*layers)
        super().__init__(decode, embed_dim, num_classes, patch_size, num_prefix_tokens, upsample)


class MaskTransformerHead(nn.Module):
    """Segmenter's mask transformer (Strudel et al. 2021): class embeddings run with the
    patches through transformer blocks; the logits are the products of L2-normalised patches
    and classes, with a layer norm over the classes."""

    num_prefix_tokens: Final[int]
    upsample: Final[bool]

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        width: int = 0,
        depth: int = 2,
        num_heads: int = 3,
        upsample: bool = True,
    ) -> None:
        super().__init__()
        width = width if width > 0 else embed_dim
        self.patch_size: List[int] = list(to_pair(patch_size))
        self.num_prefix_tokens = num_prefix_tokens
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.upsample = upsample
        self.proj_dec = nn.Linear(embed_dim, width)
        self.cls_emb = nn.Parameter(torch.zeros(1, num_classes, width))
        self.blocks = nn.ModuleList([Block(width, num_heads, 4.0, True) for _ in range(depth)])
        self.decoder_norm = nn.LayerNorm(width)
        self.proj_patch = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.proj_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.mask_norm = nn.LayerNorm(num_classes)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, D) -> logits (B, C, height, width)."""
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        x = self.proj_dec(features[:, self.num_prefix_tokens :])
        count = x.shape[1]
        x = torch.cat([x, self.cls_emb.expand(x.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_norm(x)
        patches = F.normalize(x[:, :count] @ self.proj_patch, p=2.0, dim=-1)
        classes = F.normalize(x[:, count:] @ self.proj_classes, p=2.0, dim=-1)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))
        logits = fold_tokens(masks, 0, h, w)
        return resize_logits(logits, height, width) if self.upsample else logits


class UNetStep(nn.Module):
    """One step up of a U-Net: resize to the skip's size, concatenate, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv_bn_relu(in_channels + skip_channels, out_channels),
            conv_bn_relu(out_channels, out_channels),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = resize_logits(x, skip.shape[2], skip.shape[3])
        return self.conv(torch.cat([x, skip], dim=1))


class UNetHead(nn.Module):
    """A U-Net's decoder over four blocks of the ViT.

    The tokens of the four blocks, earliest first, are brought to 4, 2, 1 and 1/2 times the
    grid of patches (for a patch of 16: 1/4, 1/8, 1/16 and 1/32 of the input) by transposed
    convolutions, nothing and max pooling, as BEiT's Feature2Pyramid does; the decoder goes
    from the coarsest up. With ``upsample=False`` the logits have 4 times the grid's size.
    """

    num_prefix_tokens: Final[int]
    upsample: Final[bool]

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        patch_size: int | Tuple[int, int] = 16,
        num_prefix_tokens: int = 1,
        blocks: Sequence[int] = (2, 5, 8, 11),
        channels: Sequence[int] = (32, 64, 128, 256),
        upsample: bool = True,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(channels) != 4:
            raise ValueError(
                f"got {len(blocks)} blocks and {len(channels)} channels, want 4 of each"
            )
        self.patch_size: List[int] = list(to_pair(patch_size))
        self.num_prefix_tokens = num_prefix_tokens
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.upsample = upsample
        self.input_blocks: List[int] = [int(b) for b in blocks]
        c0, c1, c2, c3 = channels
        self.x4 = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, c1, kernel_size=2, stride=2),
            nn.BatchNorm2d(c1),
            nn.GELU(),
            nn.ConvTranspose2d(c1, c0, kernel_size=2, stride=2),
        )
        self.x2 = nn.ConvTranspose2d(embed_dim, c1, kernel_size=2, stride=2)
        self.x1 = nn.Conv2d(embed_dim, c2, kernel_size=1)
        self.pooled = nn.Sequential(
            nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True),
            nn.Conv2d(embed_dim, c3, kernel_size=1),
        )
        self.up2 = UNetStep(c3, c2, c2)
        self.up1 = UNetStep(c2, c1, c1)
        self.up0 = UNetStep(c1, c0, c0)
        self.classifier = nn.Conv2d(c0, num_classes, kernel_size=1)

    def forward(self, features: List[Tensor], height: int, width: int) -> Tensor:
        """Tokens (B, N, D) of the four blocks -> logits (B, C, height, width)."""
        if len(features) != 4:
            raise ValueError("got the tokens of {} blocks, want 4".format(len(features)))
        h, w = height // self.patch_size[0], width // self.patch_size[1]
        prefix = self.num_prefix_tokens
        quarter = self.x4(fold_tokens(features[0], prefix, h, w))
        eighth = self.x2(fold_tokens(features[1], prefix, h, w))
        sixteenth = self.x1(fold_tokens(features[2], prefix, h, w))
        x = self.pooled(fold_tokens(features[3], prefix, h, w))
        x = self.up0(self.up1(self.up2(x, sixteenth), eighth), quarter)
        logits = self.classifier(x)
        return resize_logits(logits, height, width) if self.upsample else logits


HEADS: Dict[str, Type[nn.Module]] = {
    "linear": SegmentationHead,
    "transposed": TransposedHead,
    "progressive": ProgressiveHead,
    "fcn": FCNDecoderHead,
    "unet": UNetHead,
    "setr_pup": SETRPUPHead,
    "mask_transformer": MaskTransformerHead,
}


def four_blocks(depth: int) -> List[int]:
    """The last block of each quarter of a ViT: 2, 5, 8, 11 for 12 blocks."""
    if depth < 4:
        raise ValueError(f"got a ViT of {depth} blocks, want at least 4")
    return [(i + 1) * depth // 4 - 1 for i in range(4)]


def segmentation_head(
    name: str,
    embed_dim: int,
    num_classes: int,
    patch_size: int | Tuple[int, int] = 16,
    num_prefix_tokens: int = 1,
    depth: int = 12,
    **options: Any,
) -> nn.Module:
    """Makes the head of that name for a ViT; options are those of the head's class."""
    if name not in HEADS:
        raise ValueError(f"head {name!r}: want one of {', '.join(HEADS)}")
    if name == "unet":
        options.setdefault("blocks", four_blocks(depth))
    return HEADS[name](embed_dim, num_classes, patch_size, num_prefix_tokens, **options)
