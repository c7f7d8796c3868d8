"""Times Go's drawing and encoding beside Python's ways to do the same.

    .venv/bin/python scripts/bench_drawing.py [--rounds 3] [--json]

Both draw on the same photo of 1920x1080: an overlay of 21 classes, 50 boxes with labels, 50
instance masks, a heat map of 14x14; and both write the overlay as PNG and JPEG and the class
map as an indexed PNG. Go and Python take turns; the best of all rounds counts. Of Python's
ways, which are named in the table, the fastest counts. "cpu" is the time of all threads.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1920, 1080
LEVEL = 92  # of JPEG
LINE = re.compile(r"BenchmarkDrawing/(\w+?)(?:-\d+)?\s+\d+\s+(\d+(?:\.\d+)?) ns/op(.*)")


def make_photo() -> Image.Image:
    """A photo, enlarged."""
    photo = Image.open(ROOT / "testdata" / "images" / "coffee.jpg").convert("RGB")
    return photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def make_classes() -> np.ndarray:
    """The rectangles of internal/annotate/bench_test.go."""
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i in range(40):
        x, y = i * 577 % WIDTH, i * 331 % HEIGHT
        classes[y : y + 100 + i * 97 % 400, x : x + 100 + i * 61 % 400] = i % 21
    return classes


def make_boxes() -> np.ndarray:
    """The boxes of internal/annotate/bench_test.go."""
    rows = [(i * 577 % 1500, i * 331 % 760, 60 + i * 53 % 260) for i in range(50)]
    return np.array([(x, y, x + s, y + s) for x, y, s in rows], np.float32)


def make_masks(boxes: np.ndarray) -> np.ndarray:
    """A disc in each box."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
    for mask, (x0, y0, x1, _) in zip(masks, boxes.astype(int), strict=True):
        side = x1 - x0
        v, u = np.mgrid[:side, :side]
        mask[y0 : y0 + side, x0 : x0 + side] = (2 * u - side) ** 2 + (2 * v - side) ** 2 < side**2
    return masks


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def ways() -> dict[str, dict[str, Callable[[], Any]]]:
    """Python's ways for each of the Go benchmarks."""
    import matplotlib
    import supervision as sv
    import torch
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    photo, classes, boxes = make_photo(), make_classes(), make_boxes()
    pixels = np.array(photo)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    colors = [tuple(int(v) for v in c) for c in palette[:21]]
    each = np.stack([classes == c for c in range(21)])
    whole = sv.Detections(
        xyxy=np.tile(np.array([[0, 0, WIDTH, HEIGHT]]), (21, 1)), mask=each, class_id=np.arange(21)
    )
    masks = make_masks(boxes)
    found = sv.Detections(xyxy=boxes, class_id=np.arange(50), confidence=np.linspace(0.5, 1, 50))
    discs = sv.Detections(xyxy=boxes, mask=masks, class_id=np.arange(50))
    names = [f"dining table {i / 100 + 0.5:.2f}" for i in range(50)]
    values = (np.arange(196) * 37 % 196).reshape(14, 14).astype(np.float32)
    colormap = matplotlib.colormaps["viridis"]

    def indexed() -> Image.Image:
        image = Image.fromarray(classes)
        image.putpalette(palette.tobytes())
        return image

    def heat(resample: Image.Resampling) -> Image.Image:
        grown = np.array(Image.fromarray(values).resize((WIDTH, HEIGHT), resample))
        colored = colormap(grown / 195, bytes=True)[..., :3]
        return Image.blend(photo, Image.fromarray(np.ascontiguousarray(colored)), 0.55)

    def heat_blocks() -> Image.Image:
        small = Image.fromarray(np.ascontiguousarray(colormap(values / 195, bytes=True)[..., :3]))
        large = small.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        return Image.blend(photo, large, 0.55)

    overlay = Image.blend(photo, indexed().convert("RGB"), 0.5)
    scene = pixels.copy()
    table: dict[str, dict[str, Callable[[], Any]]] = {
        "overlay": {
            "Pillow convert and blend": lambda: Image.blend(photo, indexed().convert("RGB"), 0.5),
            "numpy palette, Pillow blend": lambda: Image.blend(
                photo, Image.fromarray(palette[classes]), 0.5
            ),
            "supervision MaskAnnotator": lambda: sv.MaskAnnotator().annotate(pixels.copy(), whole),
            "torchvision draw_segmentation_masks": lambda: draw_segmentation_masks(
                tensor, torch.from_numpy(each), 0.5, colors
            ),
        },
        "boxes": {
            "supervision Box and LabelAnnotator": lambda: sv.LabelAnnotator().annotate(
                sv.BoxAnnotator().annotate(pixels.copy(), found), found, labels=names
            ),
            "torchvision draw_bounding_boxes": lambda: draw_bounding_boxes(
                tensor, torch.from_numpy(boxes), names, width=2
            ),
        },
        "boxes_in_place": {
            "supervision Box and LabelAnnotator": lambda: sv.LabelAnnotator().annotate(
                sv.BoxAnnotator().annotate(scene, found), found, labels=names
            ),
        },
        "masks": {
            "supervision MaskAnnotator": lambda: sv.MaskAnnotator().annotate(pixels.copy(), discs),
            "torchvision draw_segmentation_masks": lambda: draw_segmentation_masks(
                tensor, torch.from_numpy(masks), 0.5
            ),
        },
        "heatmap": {"matplotlib colours, Pillow resize and blend": heat_blocks},
        "heatmap_smooth": {
            "Pillow resize, matplotlib colours, Pillow blend": lambda: heat(
                Image.Resampling.BILINEAR
            )
        },
        "png": {
            "Pillow": lambda: encode(overlay, "PNG"),
            "Pillow, compress_level 1": lambda: encode(overlay, "PNG", compress_level=1),
        },
        "png_mask": {"Pillow": lambda: encode(indexed(), "PNG")},
        "jpeg": {"Pillow": lambda: encode(overlay, "JPEG", quality=LEVEL)},
    }
    # Pillow has no blend in place.
    first = next(iter(table["overlay"]))
    table["overlay_in_place"] = {first: table["overlay"][first]}
    table["heatmap_in_place"] = table["heatmap"]
    return table


def measure(work: Callable[[], Any], seconds: float) -> tuple[float, float, int]:
    """The least wall time in ms, processor time of a call in ms, and bytes of a file."""
    result = work()
    best, calls = float("inf"), 0
    start, used = time.perf_counter(), time.process_time()
    while calls < 2 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - before)
        calls += 1
    cpu = (time.process_time() - used) / calls
    return best * 1e3, cpu * 1e3, len(result) if isinstance(result, bytes) else 0


def run_go(binary: Path, photo: Path, calls: int) -> dict[str, tuple[float, float, int]]:
    """Runs the Go benchmarks once."""
    env = os.environ | {"TORCHVIT_BENCH_PHOTO": str(photo)}
    env.setdefault("TORCHVIT_LIBTORCH", str(ROOT / ".venv"))
    command = [
        str(binary),
        "-test.run",
        "^$",
        "-test.bench",
        "Drawing",
        f"-test.benchtime={calls}x",
    ]
    out = subprocess.run(
        command,
        cwd=ROOT / "internal" / "annotate",
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, tuple[float, float, int]] = {}
    for line in out.splitlines():
        if match := LINE.match(line.strip()):
            name, wall, rest = match.groups()
            metrics = {unit: float(n) for n, unit in re.findall(r"([\d.]+) (\S+)", rest)}
            size = int(metrics.get("bytes", 0))
            found[name] = (float(wall) / 1e6, metrics["cpu-ms/op"], size)
    return found


def best(
    table: dict[str, tuple[float, float, int]], name: str, new: tuple[float, float, int]
) -> None:
    old = table.get(name, new)
    table[name] = (min(old[0], new[0]), min(old[1], new[1]), new[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often Go and Python take turns")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    args = parser.parse_args()
    go: dict[str, tuple[float, float, int]] = {}
    python: dict[str, dict[str, tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        photo, binary = Path(folder) / "photo.png", Path(folder) / "drawing.test"
        make_photo().save(photo)
        build = ["go", "test", "-c", "-o", str(binary), "./internal/annotate"]
        subprocess.run(build, cwd=ROOT, check=True)
        work = ways()
        for _ in range(args.rounds):
            for _ in range(4):
                for name, numbers in run_go(binary, photo, 3).items():
                    best(go, name, numbers)
            for name, others in work.items():
                for way, f in others.items():
                    best(python.setdefault(name, {}), way, measure(f, 0.5))
    if args.json:
        print(json.dumps({"go": go, "python": python}, indent=1))
        return
    print("| what | Go ms | Go cpu | Python ms | Python cpu | Python's way |")
    print("|---|---|---|---|---|---|")
    for name, others in python.items():
        for way, numbers in sorted(others.items(), key=lambda item: item[1][0]):
            cells = [f"{v:.1f}" for v in (*go[name][:2], *numbers[:2])]
            sizes = f" ({go[name][2]} against {numbers[2]} bytes)" if numbers[2] else ""
            print(f"| {name} | {' | '.join(cells)} | {way}{sizes} |")


if __name__ == "__main__":
    main()
