"""From an image file to the tensor a model sees, as torchvit.json's "preprocess" says.

Decoding is Pillow's ``Image.open(f).convert("RGB")`` (EXIF orientation ignored), resizing
Pillow's 8-bit arithmetic (backend "pil") or torchvision's uint8 kernel (backend "torch"),
the rest torchvision's CenterCrop, ToTensor and Normalize, or what Hugging Face's and timm's
processors do where they differ. transforms/spec.go is the same in Go.
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
    "nearest-exact": InterpolationMode.NEAREST_EXACT,
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
    detr           Hugging Face's get_size_with_aspect_ratio with size [S] and max_size
    yolos          the same as YOLOS has it, both sides down to a multiple of multiple_of
    cover, contain timm's ResizeKeepRatio, with longest 0 and 1
    max_edges      Hugging Face's max_height and max_width
    dpt            DPT's keep_aspect_ratio with multiple_of

    multiple_of m > 0 then rounds both to max(m, round(side / m) * m), half to even, unless
    the rule has a way of its own.
    """
    kind, size = rule.get("rule") or "none", [int(v) for v in rule.get("size") or []]
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
    elif kind in ("detr", "yolos"):
        raw = float(size[0])
        if limit and long / short * raw > limit:
            raw = limit * short / long
        new_short = round(raw)
        if kind == "detr" and short == new_short:
            h, w = height, width
        elif width < height:
            h, w = int(raw * height / width), new_short
        else:
            h, w = new_short, int(raw * width / height)
        if kind == "yolos":
            multiple = multiple or 16
            return max(multiple, h // multiple * multiple), max(multiple, w // multiple * multiple)
    elif kind in ("cover", "contain"):
        choose = min if kind == "cover" else max
        ratio = choose(height / size[0], width / size[-1])
        h, w = round(height / ratio), round(width / ratio)
    elif kind == "max_edges":
        ratio = min(size[0] / height, size[-1] / width)
        h, w = int(height * ratio), int(width * ratio)
    elif kind == "dpt":
        scale_h, scale_w = size[0] / height, size[-1] / width
        scale = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
        multiple = max(multiple, 1)
        return tuple(round(scale * side / multiple) * multiple for side in (height, width))
    else:
        raise ValueError(
            f"resize rule {kind!r}: want none, exact, shortest_edge, longest_edge, letterbox, "
            "detr, yolos, cover, contain, max_edges or dpt"
        )
    if multiple > 0:
        h = max(multiple, round(h / multiple) * multiple)
        w = max(multiple, round(w / multiple) * multiple)
    return h, w


def crop_window(have: int, want: int, floor: bool) -> int:
    """Where a crop starts on one axis; negative where the image is smaller."""
    if want > have:
        return -((want - have) // 2)
    return (have - want) // 2 if floor else int(round((have - want) / 2.0))


def crop(image: Image.Image, rule: dict[str, Any]) -> Image.Image:
    """Crops as "crop" says: center is torchvision's, center_floor Hugging Face's; fill is
    the colour where the image is smaller (black)."""
    kind = rule.get("rule") or "none"
    if kind == "none":
        return image
    if kind not in ("center", "center_floor"):
        raise ValueError(f"crop rule {kind!r}: want none, center or center_floor")
    height, width = int(rule["size"][0]), int(rule["size"][-1])
    top = crop_window(image.height, height, kind == "center_floor")
    left = crop_window(image.width, width, kind == "center_floor")
    canvas = Image.new("RGB", (width, height), tuple(rule.get("fill") or (0, 0, 0)))
    canvas.paste(image, (-left, -top))
    return canvas


def resize(image: Image.Image, spec: dict[str, Any]) -> Image.Image:
    """Resizes by the rule, interpolation and backend of a preprocess description."""
    rule = spec.get("resize") or {}
    height, width = resized(image.height, image.width, rule)
    mode = INTERPOLATION[spec.get("interpolation") or "bilinear"]
    if (height, width) != (image.height, image.width):
        if (spec.get("backend") or "pil") == "pil":
            image = TF.resize(image, [height, width], mode)
        else:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            antialias = spec.get("antialias") is not False
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
    if spec.get("channel_order") == "BGR":
        image = Image.merge("RGB", image.split()[::-1])
    image = crop(resize(image, spec), spec.get("crop") or {})
    kind = spec.get("normalize") or ("torchvision" if spec.get("mean") else "none")
    if kind == "fused":
        # Hugging Face's form: one subtraction and one division on 0..255.
        mean = torch.tensor(spec["mean"]) * 255.0
        std = torch.tensor(spec["std"]) * 255.0
        return TF.normalize(TF.pil_to_tensor(image).to(torch.float32), mean, std)
    if kind == "torchvision_v2":
        tensor = TV2.to_dtype(TV2.pil_to_tensor(image), torch.float32, scale=True)
        return TV2.normalize(tensor, spec["mean"], spec["std"])
    tensor = TF.to_tensor(image)
    if kind == "none":
        return tensor
    if kind != "torchvision":
        raise ValueError(f"normalize {kind!r}: want torchvision, torchvision_v2, fused or none")
    return TF.normalize(tensor, spec["mean"], spec["std"])


def load_tensor(source: bytes | str | Path, spec: dict[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """Decodes and prepares one image; returns (3, H, W) in memory that torch allocated and
    the photo's own (height, width)."""
    image = decode(source)
    tensor = to_tensor(image, spec)
    return torch.empty(tensor.shape).copy_(tensor), (image.height, image.width)
