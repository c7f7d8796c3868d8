"""From an image file to the tensor a model sees, as torchvit.json's "preprocess" says.

Decoding is Pillow's ``Image.open(f).convert("RGB")`` (EXIF orientation ignored), resizing
Pillow's 8-bit arithmetic (backend "pil") or torchvision's uint8 kernel (backend "torch"),
the rest torchvision's CenterCrop, ToTensor and Normalize.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import functional as TV2

INTERPOLATION = {
    "nearest": InterpolationMode.NEAREST,
    "box": InterpolationMode.BOX,
    "bilinear": InterpolationMode.BILINEAR,
    "hamming": InterpolationMode.HAMMING,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.LANCZOS,
}
LETTERBOX_FILL = 114


def decode(source: bytes | str | Path) -> Image.Image:
    """Decodes an image file, or its bytes, to RGB."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(stream) as image:
        return image.convert("RGB")


def resized(height: int, width: int, rule: dict[str, Any]) -> tuple[int, int]:
    """Returns the (height, width) that a resize rule gives for an image.

    none           the image's own size
    exact          size [H, W]
    shortest_edge  torchvision's Resize(S): short = S, long = int(S * long / short); with
                   max_size > 0 and long > max_size, torchvision's second step
    longest_edge   long = S, short = max(1, int(S * short / long))
    letterbox      ratio = min(H / h, W / w); each side max(round(side * ratio), 1)

    multiple_of m > 0 then rounds both to max(m, round(side / m) * m), half to even.
    """
    kind, size = rule.get("rule", "none"), [int(v) for v in rule.get("size", [])]
    multiple, limit = int(rule.get("multiple_of") or 0), int(rule.get("max_size") or 0)
    short, long = min(height, width), max(height, width)
    if kind == "none":
        h, w = height, width
    elif kind == "exact":
        h, w = (size[0], size[-1])
    elif kind == "shortest_edge":
        new_short, new_long = size[0], int(size[0] * long / short)
        if limit and new_long > limit:
            new_short, new_long = int(limit * new_short / new_long), limit
        h, w = (new_short, new_long) if height <= width else (new_long, new_short)
    elif kind == "longest_edge":
        new_short, new_long = max(1, int(size[0] * short / long)), size[0]
        h, w = (new_short, new_long) if height <= width else (new_long, new_short)
    elif kind == "letterbox":
        ratio = min(size[0] / height, size[-1] / width)
        h, w = max(round(height * ratio), 1), max(round(width * ratio), 1)
    else:
        raise ValueError(
            f"resize rule {kind!r}: want none, exact, shortest_edge, longest_edge or letterbox"
        )
    if multiple > 0:
        h = max(multiple, round(h / multiple) * multiple)
        w = max(multiple, round(w / multiple) * multiple)
    return h, w


def resize(image: Image.Image, spec: dict[str, Any]) -> Image.Image:
    """Resizes by the rule, interpolation and backend of a preprocess description."""
    rule = spec.get("resize", {"rule": "none"})
    height, width = resized(image.height, image.width, rule)
    mode = INTERPOLATION[spec.get("interpolation", "bilinear")]
    if (height, width) != (image.height, image.width):
        if spec.get("backend", "pil") == "pil":
            image = TF.resize(image, [height, width], mode)
        else:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            antialias = bool(spec.get("antialias", True))
            pixels = TV2.resize(pixels, [height, width], mode, antialias=antialias)
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if rule.get("rule") == "letterbox":
        size = [int(v) for v in rule["size"]]
        canvas = Image.new("RGB", (size[-1], size[0]), (LETTERBOX_FILL,) * 3)
        left = round((size[-1] - image.width) / 2 - 0.1)
        top = round((size[0] - image.height) / 2 - 0.1)
        canvas.paste(image, (left, top))
        image = canvas
    return image


def to_tensor(image: Image.Image, spec: dict[str, Any]) -> Tensor:
    """Resizes, crops and normalises: RGB image -> float32 (3, H, W)."""
    image = resize(image, spec)
    crop = spec.get("crop", {"rule": "none"})
    if crop.get("rule", "none") == "center":
        image = TF.center_crop(image, [int(crop["size"][0]), int(crop["size"][-1])])
    kind = spec.get("normalize", "torchvision")
    if kind == "fused":
        # Hugging Face's form: one subtraction and one division on 0..255.
        mean = torch.tensor(spec["mean"]) * 255.0
        std = torch.tensor(spec["std"]) * 255.0
        return TF.normalize(TF.pil_to_tensor(image).to(torch.float32), mean, std)
    tensor = TF.to_tensor(image)
    if kind == "none":
        return tensor
    if kind != "torchvision":
        raise ValueError(f"normalize {kind!r}: want torchvision, fused or none")
    return TF.normalize(tensor, spec["mean"], spec["std"])


def load_tensor(source: bytes | str | Path, spec: dict[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """Decodes and prepares one image; returns (3, H, W) in memory that torch allocated and
    the photo's own (height, width)."""
    image = decode(source)
    tensor = to_tensor(image, spec)
    return torch.empty(tensor.shape).copy_(tensor), (image.height, image.width)
