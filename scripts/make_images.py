"""Makes testdata/images: real photos of many shapes, and small files of many formats.

    .venv/bin/python scripts/make_images.py

The photos come from scikit-image's wheel (fetch_photos.py). Files are written only when
their bytes change.
"""

from __future__ import annotations

import argparse
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fetch_photos import fetch

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata" / "images"


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encodes an image to bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG of (H, W) grey or (H, W, 3) RGB uint16; Pillow cannot write 16-bit RGB."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = pixels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def photos(folder: Path) -> dict[str, bytes]:
    """The four photos at modest size; rocket.jpg is the file as it was."""
    astronaut = Image.open(folder / "astronaut.png").convert("RGB")
    chelsea = Image.open(folder / "chelsea.png").convert("RGB")
    coffee = Image.open(folder / "coffee.png").convert("RGB")
    return {
        "astronaut.jpg": encode(astronaut, "JPEG", quality=90, subsampling="4:4:4"),
        "chelsea.png": encode(
            chelsea.resize((300, 200), Image.Resampling.LANCZOS), "PNG", optimize=True
        ),
        "coffee.jpg": encode(coffee, "JPEG", quality=92, subsampling="4:2:0"),
        "rocket.jpg": (folder / "rocket.jpg").read_bytes(),
    }


def shapes(folder: Path) -> dict[str, bytes]:
    """Small photos of every shape that an application meets, with things to see in them."""
    astronaut = Image.open(folder / "astronaut.png").convert("RGB")
    chelsea = Image.open(folder / "chelsea.png").convert("RGB")
    coffee = Image.open(folder / "coffee.png").convert("RGB")
    rocket = Image.open(folder / "rocket.jpg").convert("RGB")

    def part(image: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int]) -> Any:
        return image.crop(box).resize(size, Image.Resampling.LANCZOS)

    cup = part(coffee, (120, 0, 600, 400), (158, 131)).quantize(96)
    return {
        "portrait.jpg": encode(part(astronaut, (110, 0, 366, 461), (167, 301)), "JPEG", quality=88),
        "panorama.jpg": encode(part(coffee, (0, 150, 600, 300), (484, 121)), "JPEG", quality=88),
        "tiny.png": encode(part(chelsea, (90, 40, 386, 224), (37, 23)), "PNG", optimize=True),
        "grey.jpg": encode(
            part(chelsea, (60, 20, 420, 290), (241, 181)).convert("L"), "JPEG", quality=88
        ),
        "palette.png": encode(cup, "PNG", optimize=True),
        "cmyk.jpg": encode(
            part(rocket, (140, 0, 640, 427), (205, 175)).convert("CMYK"), "JPEG", quality=85
        ),
    }


def formats(folder: Path) -> dict[str, bytes]:
    """Small files, one for each thing a decoder can meet. Odd sizes on purpose."""
    chelsea = Image.open(folder / "chelsea.png").convert("RGB")
    coffee = Image.open(folder / "coffee.png").convert("RGB")
    small = chelsea.resize((121, 81), Image.Resampling.LANCZOS)
    tiny = small.resize((61, 41), Image.Resampling.LANCZOS)
    other = coffee.resize((61, 41), Image.Resampling.LANCZOS)
    grey = small.convert("L")
    files: dict[str, bytes] = {}
    for name in ("444", "422", "420"):
        sampling = ":".join(name)
        files[f"jpeg_{name}.jpg"] = encode(small, "JPEG", quality=85, subsampling=sampling)
    files["jpeg_progressive.jpg"] = encode(
        small, "JPEG", quality=85, progressive=True, subsampling="4:2:0"
    )
    files["jpeg_grey.jpg"] = encode(grey, "JPEG", quality=85)
    files["jpeg_cmyk.jpg"] = encode(small.convert("CMYK"), "JPEG", quality=85)
    files["jpeg_restart.jpg"] = encode(small, "JPEG", quality=85, restart_marker_blocks=4)
    files["jpeg_1x1.jpg"] = encode(small.crop((9, 9, 10, 10)), "JPEG", quality=85)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"jpeg_exif{orientation}.jpg"] = encode(small, "JPEG", quality=85, exif=exif)
    files["png_rgb.png"] = encode(tiny, "PNG", optimize=True)
    files["png_grey.png"] = encode(grey, "PNG", optimize=True)
    files["png_1bit.png"] = encode(grey.convert("1"), "PNG", optimize=True)
    files["png_palette.png"] = encode(small.quantize(64), "PNG", optimize=True)
    files["png_palette_trns.png"] = encode(small.quantize(16), "PNG", optimize=True, transparency=3)
    ramp = np.linspace(0, 255, small.width, dtype=np.uint8)
    alpha = Image.fromarray(np.tile(ramp, (small.height, 1)))
    rgba = small.copy()
    rgba.putalpha(alpha)
    files["png_rgba.png"] = encode(rgba, "PNG", optimize=True)
    la = Image.merge("LA", (grey, alpha))
    files["png_la.png"] = encode(la, "PNG", optimize=True)
    wide = np.asarray(tiny).astype(np.uint16) * 257
    wide[:, ::2] ^= 0x5A  # low bytes that differ from the high ones
    files["png_rgb16.png"] = png16(wide)
    levels = np.arange(61 * 41, dtype=np.uint16).reshape(41, 61)
    files["png_grey16.png"] = png16(levels)  # around Pillow's clip at 255
    files["webp_lossy.webp"] = encode(small, "WEBP", quality=80)
    files["webp_lossless.webp"] = encode(tiny, "WEBP", lossless=True)
    files["webp_rgba.webp"] = encode(rgba, "WEBP", quality=80)
    files["webp_animated.webp"] = encode(
        tiny, "WEBP", save_all=True, append_images=[other], duration=100, quality=80
    )
    files["gif_single.gif"] = encode(tiny.quantize(64), "GIF", interlace=0)
    files["gif_animated.gif"] = encode(
        tiny.quantize(64), "GIF", save_all=True, append_images=[other.quantize(64)], duration=100
    )
    files["gif_interlaced.gif"] = encode(tiny.quantize(64), "GIF", interlace=1)
    files["bmp_rgb.bmp"] = encode(tiny, "BMP")
    files["bmp_palette.bmp"] = encode(tiny.quantize(64), "BMP")
    files["bmp_grey.bmp"] = encode(tiny.convert("L"), "BMP")
    files["tiff_raw.tif"] = encode(tiny, "TIFF")
    files["tiff_lzw.tif"] = encode(tiny, "TIFF", compression="tiff_lzw")
    files["tiff_deflate.tif"] = encode(tiny, "TIFF", compression="tiff_adobe_deflate")
    files["tiff_grey.tif"] = encode(tiny.convert("L"), "TIFF")
    return files


def write(path: Path, data: bytes) -> None:
    """Writes a file whole, and only when it changes."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default %(default)s)")
    out = parser.parse_args().out
    folder = fetch()
    for name, data in photos(folder).items():
        if len(data) > 200_000:
            raise SystemExit(f"{name} has {len(data)} bytes, want at most 200000")
        write(out / name, data)
    for name, data in shapes(folder).items():
        if len(data) > 40_000:
            raise SystemExit(f"{name} has {len(data)} bytes, want at most 40000")
        write(out / name, data)
    for name, data in formats(folder).items():
        if len(data) > 40_000:
            raise SystemExit(f"{name} has {len(data)} bytes, want at most 40000")
        write(out / "formats" / name, data)
    print(out)


if __name__ == "__main__":
    main()
