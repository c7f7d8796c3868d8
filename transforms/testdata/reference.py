"""Answers the Go tests with what Python gives: Pillow, torchvision, torch.

One process serves a whole test binary. A request is a line of JSON and then its blobs; an
answer has the same form. "blobs" in the JSON holds their lengths.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Answer = tuple[dict[str, Any], list[bytes]]

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
warnings.simplefilter("ignore")


def decode(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Decodes each blob; an error leaves an empty blob and its text."""
    sizes: list[list[int]] = []
    errors: list[str] = []
    out: list[bytes] = []
    for blob in blobs:
        try:
            image = Image.open(io.BytesIO(blob))
            image.load()
            if request.get("exif"):
                image = ImageOps.exif_transpose(image)
            image = image.convert(request.get("mode", "RGB"))
        except Exception as e:  # whatever Pillow says
            sizes.append([0, 0])
            errors.append(f"{type(e).__name__}: {e}")
            out.append(b"")
            continue
        sizes.append([image.height, image.width])
        errors.append("")
        out.append(image.tobytes())
    return {"sizes": sizes, "errors": errors}, out


def as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])


def pillow_resize(
    pixels: np.ndarray, height: int, width: int, code: int, box: Any, order: int
) -> np.ndarray:
    image = as_image(pixels)
    if order == 0 or code == 0:
        image = image.resize((width, height), code, box=box)
    else:
        # The order of Pillow 12: one pass at a time gives the same arithmetic.
        h, w = pixels.shape[:2]
        if box is None:
            box = (0, 0, w, h)
        if h > w * 100 and height < h:
            image = image.resize((w, height), code, box=(0, box[1], w, box[3]))
            image = image.resize((width, height), code, box=(box[0], 0, box[2], height))
        else:
            image = image.resize((width, h), code, box=(box[0], 0, box[2], h))
            image = image.resize((width, height), code, box=(0, box[1], width, box[3]))
    return np.asarray(image).reshape(height, width, pixels.shape[2])


def resize_cases(request: dict[str, Any], _: list[bytes]) -> Answer:
    """Random images of every shape, and what Pillow makes of them."""
    rnd = random.Random(request["seed"])
    rng = np.random.default_rng(request["seed"])
    cases: list[dict[str, Any]] = []
    out: list[bytes] = []
    for number in range(request["count"]):
        channels = rnd.choice([1, 2, 3, 3, 3, 4])
        kind = rnd.random()
        if kind < 0.15:
            h, w = rnd.randint(1, 12), rnd.randint(1, 12)
        elif kind < 0.25:
            h, w = rnd.randint(300, 1200), rnd.randint(1, 8)
        elif kind < 0.35:
            h, w = rnd.randint(1, 8), rnd.randint(300, 1200)
        else:
            h, w = rnd.randint(10, 300), rnd.randint(10, 300)
        height, width = rnd.randint(1, 200), rnd.randint(1, 200)
        if rnd.random() < 0.1:
            height = h
        if rnd.random() < 0.1:
            width = w
        code = number % 6
        pixels = rng.integers(0, 256, (h, w, channels), dtype=np.uint8)
        if rnd.random() < 0.3:  # black and white: the largest overshoot
            pixels = (pixels > 127).astype(np.uint8) * 255
        box = None
        order = rnd.choice([0, 0, 1])
        # Two passes of one side each can only stand in for Pillow 12 without alpha, whose
        # division Pillow would do twice.
        if channels in (2, 4):
            order = 0
        if rnd.random() < 0.2 and w > 2 and h > 2:
            x0, y0 = rnd.uniform(0, w * 0.4), rnd.uniform(0, h * 0.4)
            box = (x0, y0, rnd.uniform(x0 + 1, w), rnd.uniform(y0 + 1, h))
            if rnd.random() < 0.3:
                box = (int(x0), int(y0), int(box[2]), int(box[3]))
            box = tuple(float(np.float32(v)) for v in box)
        result = pillow_resize(pixels, height, width, code, box, order)
        cases.append(
            {
                "source": [h, w, channels],
                "size": [height, width],
                "filter": code,
                "box": box or [0, 0, 0, 0],
                "order": order,
            }
        )
        out += [pixels.tobytes(), result.tobytes()]
    return {"cases": cases}, out


def tables(request: dict[str, Any], _: list[bytes]) -> Answer:
    """All 256 levels of three channels through the Python libraries' normalisation."""
    from torchvision.transforms import functional as v1
    from torchvision.transforms.v2 import functional as v2

    import torch

    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    mean, std = request["mean"], request["std"]
    chw = torch.from_numpy(levels.copy()).permute(2, 0, 1).contiguous()
    rescale = 1 / 255
    fused_mean = torch.tensor(mean) * (1.0 / rescale)
    fused_std = torch.tensor(std) * (1.0 / rescale)
    results = {
        "none": v1.to_tensor(Image.fromarray(levels)),
        "torchvision": v1.normalize(v1.to_tensor(Image.fromarray(levels)), mean, std),
        "torchvision_v2": v2.normalize(v2.to_dtype(chw, torch.float32, scale=True), mean, std),
        "fused": v2.normalize(chw.to(torch.float32), fused_mean.tolist(), fused_std.tolist()),
    }
    return {"names": list(results)}, [t.contiguous().numpy().tobytes() for t in results.values()]


def sizes(request: dict[str, Any], _: list[bytes]) -> Answer:
    """The libraries' size rules, for many photos."""
    from torchvision.transforms.functional import _compute_resized_output_size

    def detr(h: int, w: int, size: int, max_size: int) -> tuple[int, int]:
        # get_size_with_aspect_ratio of Hugging Face transformers, in its own words.
        raw = None
        low, high = float(min(h, w)), float(max(h, w))
        if high / low * size > max_size:
            raw = max_size * low / high
            size = round(raw)
        if (h <= w and h == size) or (w <= h and w == size):
            return h, w
        if w < h:
            return int((raw if raw is not None else size) * h / w), size
        return size, int((raw if raw is not None else size) * w / h)

    def yolos(h: int, w: int, size: int, max_size: int) -> tuple[int, int]:
        raw = None
        low, high = float(min(h, w)), float(max(h, w))
        if high / low * size > max_size:
            raw = max_size * low / high
            size = round(raw)
        other = raw if raw is not None else size
        oh, ow = (int(other * h / w), size) if w < h else (size, int(other * w / h))
        return max(16, oh // 16 * 16), max(16, ow // 16 * 16)

    def dpt(h: int, w: int, height: int, width: int, multiple: int) -> tuple[int, int]:
        sh, sw = height / h, width / w
        if abs(1 - sw) < abs(1 - sh):
            sh = sw
        else:
            sw = sh
        return round(sh * h / multiple) * multiple, round(sw * w / multiple) * multiple

    from timm.data.transforms import ResizeKeepRatio

    answers: list[list[int]] = []
    for h, w, s, m, mult in request["photos"]:
        row: list[int] = []
        row += _compute_resized_output_size((h, w), [s])
        row += _compute_resized_output_size((h, w), [s], max_size=s + m)
        row += detr(h, w, s, s + m)
        ratio = min(s / h, (s + m) / w)
        row += [max(round(h * ratio), 1), max(round(w * ratio), 1)]
        row += [round((s - h) / 2 - 0.1), round((s + m - w) / 2 - 0.1)]
        row += [max(mult, round(h / mult) * mult), max(mult, round(w / mult) * mult)]
        row += crop_window(h, w, s, s + m)
        row += [
            int((h - s) / 2.0) if h >= s else 0,
            int((w - s) / 2.0) if w >= s else 0,
        ]
        row.append(int(np.floor(s / 0.875)))
        row += yolos(h, w, s, s + m)
        image = Image.new("1", (w, h))
        row += ResizeKeepRatio.get_params(image, (s, s + m), 0.0)
        row += ResizeKeepRatio.get_params(image, (s, s + m), 1.0)
        scale = min(s / h, (s + m) / w)
        row += [int(h * scale), int(w * scale)]
        row += dpt(h, w, s, s + m, mult)
        answers.append(row)
    return {"sizes": answers}, []


def crop_window(h: int, w: int, crop_h: int, crop_w: int) -> list[int]:
    """The corner of torchvision's center_crop, found by cropping lines of coordinates."""
    from torchvision.transforms.functional import center_crop

    import torch

    corner: list[int] = []
    for n, crop in ((h, crop_h), (w, crop_w)):
        line = center_crop(torch.arange(1, n + 1).view(1, n, 1), [crop, 1]).view(-1).tolist()
        at = next(i for i, v in enumerate(line) if v > 0)
        corner.append(line[at] - 1 - at)
    return corner


def torch_resize(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """torchvision v2's resize of a uint8 or float tensor."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as v2

    import torch

    h, w = request["source"]
    pixels = np.frombuffer(blobs[0], np.uint8).reshape(h, w, 3)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    if request["float"]:
        tensor = tensor.to(torch.float32).div(255).contiguous()
    result = v2.resize(
        tensor,
        request["size"],
        InterpolationMode(request["filter"]),
        antialias=request["antialias"],
    )
    return {}, [result.contiguous().numpy().tobytes()]


def preprocess(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """scripts/preprocess.py on each blob."""
    from preprocess import load_tensor

    shapes: list[list[int]] = []
    out: list[bytes] = []
    for blob in blobs:
        tensor, _ = load_tensor(blob, request["spec"])
        shapes.append(list(tensor.shape))
        out.append(tensor.numpy().tobytes())
    return {"shapes": shapes}, out


def steps(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """torchvision's Compose on a photo, whose pixels come decoded."""
    from torchvision import transforms as T

    import torch

    h, w = request["source"]
    image = Image.fromarray(np.frombuffer(blobs[0], np.uint8).reshape(h, w, 3))
    chain = {
        "classify": T.Compose(
            [
                T.Resize(256),
                T.CenterCrop(224),
                T.ToTensor(),
                T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        ),
        "pad": T.Compose([T.Pad((3, 5, 7, 11), fill=9), T.CenterCrop((600, 700)), T.ToTensor()]),
        "float": T.Compose(
            [
                T.ToTensor(),
                T.Resize((97, 101), T.InterpolationMode.BICUBIC),
                T.CenterCrop((120, 64)),
                T.Pad((1, 2, 3, 4), fill=2),
            ]
        ),
    }[request["chain"]]
    result: torch.Tensor = chain(image)
    return {"shape": list(result.shape)}, [result.contiguous().numpy().tobytes()]


def timm_transform(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """timm's own transform for a config, on each photo."""
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config(pretrained_cfg=request["config"]))
    shapes: list[list[int]] = []
    out: list[bytes] = []
    for blob in blobs:
        tensor = transform(Image.open(io.BytesIO(blob)).convert("RGB"))
        shapes.append(list(tensor.shape))
        out.append(tensor.contiguous().numpy().tobytes())
    return {"shapes": shapes}, out


def huggingface_processor(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """An image processor of transformers, made from a preprocessor_config.json, on each photo."""
    import transformers

    config = dict(request["config"])
    name = request["processor"] + ("Pil" if request["backend"] == "pil" else "")
    cls = getattr(transformers, name)
    processor = cls.from_dict(config)
    shapes: list[list[int]] = []
    out: list[bytes] = []
    for blob in blobs:
        image = Image.open(io.BytesIO(blob)).convert("RGB")
        tensor = processor(images=[image], return_tensors="pt")["pixel_values"][0]
        shapes.append(list(tensor.shape))
        out.append(tensor.contiguous().float().numpy().tobytes())
    return {"shapes": shapes}, out


def opencv_letterbox(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """The letterbox of YOLO's programs with OpenCV: ratio, rounding and grey as they document them."""
    import cv2

    height, width = request["size"]
    out: list[bytes] = []
    for blob in blobs:
        image = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        h, w = image.shape[:2]
        ratio = min(height / h, width / w)
        new_w, new_h = round(w * ratio), round(h * ratio)
        dw, dh = (width - new_w) / 2, (height - new_h) / 2
        if (w, h) != (new_w, new_h):
            image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        top, bottom = round(dh - 0.1), round(dh + 0.1)
        left, right = round(dw - 0.1), round(dw + 0.1)
        image = cv2.copyMakeBorder(
            image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
        )
        out.append(image.transpose(2, 0, 1).tobytes())
    return {}, out


# --- files that decoders can meet -----------------------------------------------------------------


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    raw: bytes,
    palette: bytes | None = None,
    before: list[tuple[bytes, bytes]] | None = None,
    interlace: int = 0,
    split: int = 0,
) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    if palette is not None:
        out += chunk(b"PLTE", palette)
    for kind, body in before or []:
        out += chunk(kind, body)
    packed = zlib.compress(raw)
    step = split or len(packed)
    for i in range(0, len(packed), step):
        out += chunk(b"IDAT", packed[i : i + step])
    return out + chunk(b"IEND", b"")


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]


def scanlines(rng: np.random.Generator, width: int, height: int, bits: int) -> bytes:
    """Random bytes under random filters."""
    n = (width * bits + 7) // 8
    out = b""
    for _ in range(height):
        out += bytes([int(rng.integers(0, 5))]) + rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    return out


def png_files(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for width, height in [(37, 23), (1, 1), (3, 9)]:
        for colour, depths in {
            0: (1, 2, 4, 8, 16),
            2: (8, 16),
            3: (1, 2, 4, 8),
            4: (8, 16),
            6: (8, 16),
        }.items():
            for depth in depths:
                bits = depth * CHANNELS[colour]
                palette = None
                if colour == 3:
                    palette = rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()
                name = f"png colour {colour} depth {depth} {width}x{height}"
                yield (
                    name,
                    png(
                        width,
                        height,
                        depth,
                        colour,
                        scanlines(rng, width, height, bits),
                        palette,
                        split=100,
                    ),
                )
                raw = b""
                for x, y, dx, dy in ADAM7:
                    w, h = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
                    if w > 0 and h > 0:
                        raw += scanlines(rng, w, h, bits)
                yield (
                    name + " interlaced",
                    png(width, height, depth, colour, raw, palette, interlace=1),
                )
    rgb = scanlines(rng, 37, 23, 24)
    grey = scanlines(rng, 37, 23, 8)
    grey16 = scanlines(rng, 37, 23, 16)
    short = rng.integers(0, 256, 30, dtype=np.uint8).tobytes()
    yield "png tRNS RGB", png(37, 23, 8, 2, rgb, before=[(b"tRNS", b"\0\1\0\1\0\1")])
    yield "png tRNS grey", png(37, 23, 8, 0, grey, before=[(b"tRNS", b"\0\1")])
    yield "png tRNS grey 16", png(37, 23, 16, 0, grey16, before=[(b"tRNS", b"\0\1")])
    yield (
        "png gAMA",
        png(37, 23, 8, 2, rgb, before=[(b"gAMA", struct.pack(">I", 100000))]),
    )
    yield "png palette too short", png(37, 23, 8, 3, grey, short)
    yield (
        "png palette with tRNS",
        png(37, 23, 8, 3, grey, short * 8, before=[(b"tRNS", bytes(range(80)))]),
    )
    yield "png grey with palette", png(37, 23, 8, 0, grey, short)


def lzw(data: np.ndarray, size: int) -> bytes:
    """Codes without compression."""
    clear, bits, count, out = 1 << size, 0, 0, bytearray()
    codes, run = [clear], 0
    for v in data.ravel():
        codes.append(int(v))
        run += 1
        if run == clear - 2:
            codes.append(clear)
            run = 0
    for code in [*codes, clear + 1]:
        bits |= code << count
        count += size + 1
        while count >= 8:
            out.append(bits & 255)
            bits >>= 8
            count -= 8
    if count:
        out.append(bits & 255)
    blocks = b"".join(
        bytes([len(out[i : i + 255])]) + bytes(out[i : i + 255]) for i in range(0, len(out), 255)
    )
    return bytes([size]) + blocks + b"\0"


def gif(
    width: int,
    height: int,
    frames: list[dict[str, Any]],
    palette: bytes | None,
    background: int = 0,
) -> bytes:
    out = b"GIF89a" + struct.pack("<HH", width, height)
    out += bytes(
        [
            0x70 if palette is None else 0xF0 | (len(palette) // 3).bit_length() - 2,
            background,
            0,
        ]
    )
    out += palette or b""
    for frame in frames:
        if "control" in frame:
            disposal, transparent = frame["control"]
            flags = disposal << 2 | (transparent is not None)
            out += b"\x21\xf9\x04" + bytes([flags, 0, 0, transparent or 0, 0])
        x, y, w, h = frame["place"]
        local = frame.get("palette")
        flags = 0x40 if frame.get("interlaced") else 0
        if local is not None:
            flags |= 0x80 | (len(local) // 3).bit_length() - 2
        out += b"," + struct.pack("<HHHHB", x, y, w, h, flags) + (local or b"")
        data = frame["data"]
        if frame.get("interlaced"):
            data = data[[r for s, t in ((0, 8), (4, 8), (2, 4), (1, 2)) for r in range(s, h, t)]]
        out += lzw(data, frame.get("bits", 8))
    return out + b";"


def gif_files(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    def colours(n: int) -> bytes:
        return rng.integers(0, 256, 3 * n, dtype=np.uint8).tobytes()

    def frame(x: int, y: int, w: int, h: int, n: int = 256, **more: Any) -> dict[str, Any]:
        return {
            "place": (x, y, w, h),
            "data": rng.integers(0, n, (h, w), dtype=np.uint8),
            **more,
        }

    greys = bytes(v for i in range(256) for v in (i, i, i))
    yield "gif global palette", gif(29, 17, [frame(0, 0, 29, 17)], colours(256))
    yield (
        "gif local palette",
        gif(29, 17, [frame(0, 0, 29, 17, palette=colours(256))], None),
    )
    yield (
        "gif both palettes",
        gif(29, 17, [frame(0, 0, 29, 17, palette=colours(256))], colours(256)),
    )
    yield "gif no palette", gif(29, 17, [frame(0, 0, 29, 17)], None)
    yield "gif grey palette", gif(29, 17, [frame(0, 0, 29, 17)], greys)
    yield (
        "gif grey local palette",
        gif(29, 17, [frame(0, 0, 29, 17, palette=greys)], colours(256)),
    )
    yield "gif short grey palette", gif(29, 17, [frame(0, 0, 29, 17)], greys[:48])
    yield "gif 16 colours", gif(29, 17, [frame(0, 0, 29, 17, 16, bits=4)], colours(16))
    yield "gif index without colour", gif(29, 17, [frame(0, 0, 29, 17)], colours(16))
    yield "gif 2 colours", gif(29, 17, [frame(0, 0, 29, 17, 2, bits=2)], colours(2))
    for transparent in (None, 3, 7, 200):
        for disposal in (0, 1, 2, 3):
            for background in (0, 3, 200):
                control = (disposal, transparent)
                name = f"gif disposal {disposal} transparent {transparent} background {background}"
                yield (
                    name,
                    gif(
                        29,
                        17,
                        [frame(0, 0, 29, 17, control=control)],
                        colours(256),
                        background,
                    ),
                )
                yield (
                    name + " part",
                    gif(
                        29,
                        17,
                        [frame(5, 4, 11, 9, control=control)],
                        colours(256),
                        background,
                    ),
                )
    yield "gif part without control", gif(29, 17, [frame(5, 4, 11, 9)], colours(256), 9)
    yield (
        "gif part interlaced",
        gif(29, 17, [frame(5, 4, 11, 9, interlaced=True)], colours(256), 9),
    )
    yield (
        "gif part with local palette",
        gif(29, 17, [frame(5, 4, 11, 9, palette=colours(64), n=64)], colours(256), 9),
    )
    yield "gif larger than screen", gif(29, 17, [frame(0, 0, 40, 30)], colours(256), 9)
    yield "gif sticks out", gif(29, 17, [frame(20, 10, 15, 15)], colours(256), 9)
    yield (
        "gif two frames",
        gif(
            29,
            17,
            [frame(2, 2, 9, 9, control=(2, 4)), frame(3, 3, 9, 9)],
            colours(256),
            9,
        ),
    )
    for height in (1, 2, 3, 5, 7, 8, 9, 16):
        yield (
            f"gif interlaced {height}",
            gif(9, height, [frame(0, 0, 9, height, interlaced=True)], colours(256)),
        )


def saved_files(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """What Pillow itself writes."""
    photo = Image.open(ROOT / "testdata/images/coffee.jpg").convert("RGB")

    def save(image: Image.Image, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    # Other samplings by changing the header, so that the number of blocks stays the same.
    for name, sampling, (w, h), code, (new_w, new_h) in [
        ("4:4:0", "4:2:2", (64, 48), 0x12, (48, 64)),
        ("4:1:1", "4:2:0", (64, 64), 0x41, (128, 32)),
    ]:
        for progressive in (False, True):
            data = bytearray(
                save(
                    photo.resize((w, h)),
                    "JPEG",
                    subsampling=sampling,
                    progressive=progressive,
                )
            )
            at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", new_h, new_w)
            data[at + 11] = code
            yield f"jpeg {name} progressive {progressive}", bytes(data)
    for w, h in [(1, 1), (3, 3), (17, 7), (9, 33), (100, 75)]:
        part = photo.resize((w, h))
        for sampling in ("4:4:4", "4:2:2", "4:2:0"):
            for quality in (20, 75, 100):
                for progressive in (False, True):
                    yield (
                        f"jpeg {w}x{h} {sampling} q{quality} progressive {progressive}",
                        save(
                            part,
                            "JPEG",
                            quality=quality,
                            subsampling=sampling,
                            progressive=progressive,
                        ),
                    )
        yield f"jpeg grey {w}x{h}", save(part.convert("L"), "JPEG")
        yield f"jpeg cmyk {w}x{h}", save(part.convert("CMYK"), "JPEG")
        yield f"jpeg restart {w}x{h}", save(part, "JPEG", restart_marker_blocks=1)
        for quality in (10, 80, 100):
            yield f"webp {w}x{h} q{quality}", save(part, "WEBP", quality=quality)
        yield f"webp lossless {w}x{h}", save(part, "WEBP", lossless=True)
        alpha = part.copy()
        alpha.putalpha(Image.fromarray(rng.integers(0, 256, (h, w), dtype=np.uint8)))
        for exact in (False, True):
            yield f"webp alpha {w}x{h} exact {exact}", save(alpha, "WEBP", exact=exact)
            yield (
                f"webp alpha lossless {w}x{h} exact {exact}",
                save(alpha, "WEBP", lossless=True, exact=exact),
            )
        frames = [part.rotate(k * 90) for k in range(3)]
        yield (
            f"webp animated {w}x{h}",
            save(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        )
        yield (
            f"webp animated alpha {w}x{h}",
            save(
                alpha,
                "WEBP",
                save_all=True,
                append_images=[alpha.rotate(90)],
                lossless=True,
            ),
        )
        yield f"gif saved {w}x{h}", save(part.quantize(64), "GIF")
        yield f"png saved {w}x{h}", save(part, "PNG")
        yield (
            f"png animated {w}x{h}",
            save(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        )
        for mode in ("RGB", "L", "1"):
            yield f"bmp {mode} {w}x{h}", save(part.convert(mode), "BMP")
        yield f"bmp P {w}x{h}", save(part.quantize(256), "BMP")
        yield f"bmp RGBA {w}x{h}", save(alpha, "BMP")
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            for mode in ("RGB", "L", "RGBA", "P"):
                image = {"RGBA": alpha, "P": part.quantize(200)}.get(mode) or part.convert(mode)
                yield (
                    f"tiff {mode} {compression} {w}x{h}",
                    save(image, "TIFF", compression=compression),
                )
        yield f"tiff bilevel {w}x{h}", save(part.convert("1"), "TIFF")
        deep = Image.fromarray(rng.integers(0, 600, (h, w)).astype(np.uint16))
        yield f"tiff 16 bit {w}x{h}", save(deep, "TIFF")
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield (
                f"tiff orientation {orientation} {w}x{h}",
                save(part, "TIFF", exif=exif),
            )


def oriented_files(_: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    photo = Image.open(ROOT / "testdata/images/coffee.jpg").convert("RGB").resize((31, 17))
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in range(10):
            exif = Image.Exif()
            exif[0x0112] = orientation
            stream = io.BytesIO()
            photo.save(stream, kind, exif=exif)
            yield f"{kind} orientation {orientation}", stream.getvalue()
    for orientation in (3, 6):
        xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
        stream = io.BytesIO()
        photo.save(stream, "JPEG", xmp=xmp)
        yield f"JPEG XMP orientation {orientation}", stream.getvalue()


def files(request: dict[str, Any], _: list[bytes]) -> Answer:
    """Files of one group by name."""
    group: Callable[[np.random.Generator], Iterator[tuple[str, bytes]]] = {
        "png": png_files,
        "gif": gif_files,
        "saved": saved_files,
        "oriented": oriented_files,
    }[request["group"]]
    found = list(group(np.random.default_rng(7)))
    return {"names": [name for name, _ in found]}, [data for _, data in found]


# --- speed ----------------------------------------------------------------------------------------


def best(run: Callable[[], Any], seconds: float) -> float:
    run()
    least, end = 1e9, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
    return least


def speed(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Seconds that Pillow takes, the best of many runs."""
    seconds = request.get("seconds", 0.3)
    if request["what"] == "decode":
        blob = blobs[0]
        return {"seconds": best(lambda: Image.open(io.BytesIO(blob)).convert("RGB"), seconds)}, []
    h, w, c = request["source"]
    image = as_image(np.frombuffer(blobs[0], np.uint8).reshape(h, w, c))
    if request["what"] == "resize":
        height, width = request["size"]
        return {
            "seconds": best(lambda: image.resize((width, height), request["filter"]), seconds)
        }, []
    from preprocess import to_tensor

    import torch

    torch.set_num_threads(1)
    return {"seconds": best(lambda: to_tensor(image, request["spec"]), seconds)}, []


def encode_jpeg(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """torchvision's encode_jpeg of pixels H x W x 3."""
    import torch
    import torchvision

    shape = (request["height"], request["width"], 3)
    pixels = torch.frombuffer(bytearray(blobs[0]), dtype=torch.uint8).reshape(shape)
    file = torchvision.io.encode_jpeg(pixels.permute(2, 0, 1).contiguous(), request["quality"])
    return {}, [file.numpy().tobytes()]


def augment(request: dict[str, Any], blobs: list[bytes]) -> Answer:
    """torchvision.transforms.v2 with given parameters, on a PIL image, a Mask and BoundingBoxes:
    resized_crop, crop and pad to the window, ColorJitter before the pad, horizontal flip; then
    which boxes SanitizeBoundingBoxes keeps, and ToTensor and Normalize with mean and std of 0.5.
    """
    from torchvision import transforms as v1
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode, v2
    from torchvision.transforms.v2 import functional as F

    import torch

    h, w, c = request["source"]
    image = as_image(np.frombuffer(blobs[0], np.uint8).reshape(h, w, c))
    classes = torch.frombuffer(bytearray(blobs[1]), dtype=torch.uint8).reshape(h, w)
    mask = tv_tensors.Mask(classes)
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor(request["boxes"], dtype=torch.float32), format="XYXY", canvas_size=(h, w)
    )
    top, left, height, width = request["crop"]
    size = request["resized"]
    crop = v2.RandomResizedCrop(size, interpolation=InterpolationMode(request["filter"]))
    params = {"top": top, "left": left, "height": height, "width": width}
    items = [crop.transform(x, params) for x in (image, mask, boxes)]

    top, left, height, width = request["window"]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, size[0]), min(left + width, size[1])
    if (y0, x0, y1, x1) != (0, 0, *size):
        items = [F.crop(x, y0, x0, y1 - y0, x1 - x0) for x in items]
    items[2] = v2.ClampBoundingBoxes()(items[2])
    if request.get("color"):
        jitter = v2.ColorJitter()
        color = {k: v for k, v in request["color"].items() if k != "order"}
        items[0] = jitter.transform(items[0], {"fn_idx": request["color"]["order"], **color})
    pad = [x0 - left, y0 - top, left + width - x1, top + height - y1]
    if any(pad):
        fill = tuple(request["fill"][:c]) if c > 1 else request["fill"][0]
        items = [
            F.pad(items[0], pad, fill=fill),
            F.pad(items[1], pad, fill=request["ignore"]),
            F.pad(items[2], pad),
        ]
    if request["flip"]:
        items = [v2.RandomHorizontalFlip(1.0)(x) for x in items]
    image, mask, boxes = items
    labels = torch.arange(len(boxes))
    kept = v2.SanitizeBoundingBoxes(labels_getter=lambda x: x["labels"])(
        {"boxes": boxes, "labels": labels}
    )["labels"]
    tensor = v1.functional.normalize(v1.functional.to_tensor(image), [0.5] * c, [0.5] * c)
    return {"kept": kept.tolist()}, [
        image.tobytes(),
        mask.contiguous().numpy().tobytes(),
        boxes.contiguous().numpy().tobytes(),
        tensor.contiguous().numpy().tobytes(),
    ]


def crop_shares(request: dict[str, Any], _: list[bytes]) -> Answer:
    """The mean share of the photo that torchvision's RandomResizedCrop draws."""
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(8)
    image = Image.new("1", (request["width"], request["height"]))
    drawn = [crop.make_params([image]) for _ in range(request["count"])]
    area = request["width"] * request["height"] * request["count"]
    return {"mean": sum(p["height"] * p["width"] for p in drawn) / area}, []


OPERATIONS: dict[str, Callable[[dict[str, Any], list[bytes]], Answer]] = {
    f.__name__: f
    for f in (
        decode,
        resize_cases,
        tables,
        sizes,
        torch_resize,
        preprocess,
        steps,
        timm_transform,
        huggingface_processor,
        opencv_letterbox,
        files,
        speed,
        encode_jpeg,
        augment,
        crop_shares,
    )
}


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        request = json.loads(line)
        blobs = [source.read(n) for n in request.get("blobs", [])]
        try:
            answer, out = OPERATIONS[request["op"]](request, blobs)
        except Exception as e:  # the test reports it
            answer, out = {"error": f"{type(e).__name__}: {e}"}, []
        answer["blobs"] = [len(b) for b in out]
        sink.write(json.dumps(answer).encode() + b"\n")
        for b in out:
            sink.write(b)
        sink.flush()


if __name__ == "__main__":
    main()
