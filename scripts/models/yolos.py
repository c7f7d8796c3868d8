"""Set prediction with a ViT: detection tokens among the patches, as YOLOS (Fang et al. 2021)."""

from typing import Final, List, Tuple

import torch
from torch import Tensor, nn

from models.vision_transformer import VisionTransformer


class MLP(nn.Module):
    """DETR's head: linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden: int, out: int, layers: int = 3) -> None:
        super().__init__()
        sizes = [dim] + [hidden] * (layers - 1) + [out]
        parts: List[nn.Module] = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            parts += [nn.Linear(a, b)] + ([nn.ReLU()] if i < layers - 1 else [])
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class VisionTransformerForDetection(VisionTransformer):
    """A ViT whose last tokens, after the patches, each predict one object.

    forward: (B, 3, H, W) -> class logits (B, Q, C + 1), whose last class is "no object",
    and boxes (B, Q, 4), centre x, y, width, height as shares of the input. With
    ``no_object=False`` the logits are (B, Q, C), each class for itself (sigmoid), as those of
    Deformable DETR and RT-DETR.
    """

    num_detection_tokens: Final[int]

    def __init__(
        self,
        num_classes: int,
        img_size: int | Tuple[int, int] = 224,
        patch_size: int | Tuple[int, int] = 16,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        num_detection_tokens: int = 100,
        no_object: bool = True,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
        )
        self.num_detection_tokens = num_detection_tokens
        self.detection_tokens = nn.Parameter(torch.zeros(1, num_detection_tokens, embed_dim))
        nn.init.trunc_normal_(self.detection_tokens, std=0.02)
        self.class_head = MLP(embed_dim, embed_dim, num_classes + (1 if no_object else 0))
        self.box_head = MLP(embed_dim, embed_dim, 4)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        x = self.embed(x)
        x = torch.cat([x, self.detection_tokens.expand(x.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, -self.num_detection_tokens :]
        return self.class_head(x), self.box_head(x).sigmoid()
