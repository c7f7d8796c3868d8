"""Draws the README's picture and writes its figures, from what `make demo` left behind.

    make pictures                                    # the demo, then this
    .venv/bin/python scripts/readme_pictures.py demo # this alone

The picture is docs/images/demo.jpg: the first photos of one garment, and the first scenes, as
the demo's commands drew them. The figures are testdata/models/figures.json's and the demo's
training; they stand in README.md between <!-- figures --> or <!-- training --> and
<!-- end -->, and the whole training in docs/training-go.md, with its curves.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TRAINING = ROOT / "docs" / "training-go.md"
PICTURE = ROOT / "docs" / "images" / "demo.jpg"
CURVES = ROOT / "docs" / "images" / "training-go-curves.png"
FIGURES = ROOT / "testdata" / "models" / "figures.json"
WIDTH, GAP, TITLE = 1456, 6, 22
SINGLES, SCENES = 7, 3
COLUMNS = {
    "attend/{}.attention-mean.jpg": "attention of the classifier",
    "segment/{}.overlay.jpg": "segmentation",
    "detect/{}.detections.jpg": "detection",
    "train/before/{}.overlay.jpg": "a new head, before training in Go",
    "train/after/{}.overlay.jpg": "and after it",
}


def panel(path: Path, width: int, size: tuple[int, int]) -> Image.Image:
    """A picture of that width, without the legend beside or below the photo's own size."""
    picture = Image.open(path).convert("RGB").crop((0, 0, *size))
    return picture.resize((width, round(width * size[1] / size[0])), Image.Resampling.LANCZOS)


def draw_picture(demo: Path) -> None:
    """Writes PICTURE."""
    font = ImageFont.load_default(15)
    # One line of photos, all as high.
    paths = [demo / "classify" / f"single_{n}.classes.jpg" for n in range(1, SINGLES + 1)]
    shapes = [Image.open(path).size for path in paths]
    high = (WIDTH - GAP * (SINGLES - 1)) / sum(w / h for w, h in shapes)
    singles = [panel(p, round(high * w / h), (w, h)) for p, (w, h) in zip(paths, shapes)]
    high = max(picture.height for picture in singles)
    across = (WIDTH - GAP * (len(COLUMNS) - 1)) // len(COLUMNS)
    rows = []
    for n in range(1, SCENES + 1):
        name = f"scene_{n}"
        size = Image.open(ROOT / "testdata" / "scenes" / f"{name}.jpg").size
        rows.append([panel(demo / path.format(name), across, size) for path in COLUMNS])
    height = TITLE + high + TITLE + sum(row[0].height + GAP for row in rows)
    canvas = Image.new("RGB", (WIDTH, height), "white")
    write = ImageDraw.Draw(canvas)
    write.text((2, 2), "classification", "black", font)
    x = 0
    for picture in singles:
        canvas.paste(picture, (x, TITLE))
        x += picture.width + GAP
    y = TITLE + high
    for n, title in enumerate(COLUMNS.values()):
        write.text((n * (across + GAP) + 2, y + 2), title, "black", font)
    y += TITLE
    for row in rows:
        for n, picture in enumerate(row):
            canvas.paste(picture, (n * (across + GAP), y))
        y += row[0].height + GAP
    canvas.save(PICTURE, quality=84, optimize=True)
    print(f"{PICTURE.name}: {canvas.size}, {PICTURE.stat().st_size} bytes")


def figures_table(figures: dict[str, Any]) -> str:
    """The README's table."""
    seen, attention = figures["classification"], figures["attention"]
    rows = [
        ("classification, on Fashion-MNIST as it is", "top-1", seen["top1"], None),
        ("classification, on photos and textures", "top-1", seen["top1_photos"], None),
        (
            f"attention on the garments, {100 * attention['area_of_garments']:.0f} % of the area",
            "share",
            attention["mass_on_garments"],
            None,
        ),
    ]
    for key, title, metric in (
        ("segmentation", "segmentation, 1x1 head", "miou"),
        ("deconvolution", "segmentation, transposed convolution", "miou"),
        ("head", "segmentation, 1x1 head alone, ViT as it is", "miou"),
        ("faster_rcnn", "detection, Faster R-CNN", "ap50"),
        ("yolo", "detection, YOLO-style head", "ap50"),
    ):
        values = figures.get(key, {})
        if "pretrained" in values:
            scratch = values.get("scratch", {}).get(metric)
            name = {"miou": "mIoU", "ap50": "AP50"}[metric]
            rows.append((title, name, values["pretrained"][metric], scratch))
    lines = ["| task | figure | from the pretrained ViT | from scratch |", "|---|---|---|---|"]
    for title, name, value, scratch in rows:
        other = "" if scratch is None else f" {scratch:.3f}"
        lines.append(f"| {title} | {name} | {value:.3f} |{other} |")
    return "\n".join(lines)


def training_block(demo: Path, whole: bool) -> str:
    """The demo's training as a block of text: its command, and what it said; if not whole, what
    came of it alone."""
    said = (demo / "train" / "train.txt").read_text().splitlines()
    # The command comes first.
    command = ""
    for word in said[0].split():
        room = len(command.rpartition("\n")[2]) + len(word) < 108
        command += (" " if room else " \\\n    ") + word if command else word
    passing = re.compile(r"step \d+ of|measuring|$" + ("" if whole else "|epoch|before"))
    lines = [line for line in said[1:] if not passing.match(line)]
    return "\n".join(["```", command, *lines, "```"])


def put(path: Path, mark: str, made: str) -> None:
    """Replaces what stands in a document between a mark and the end's."""
    before, found, rest = path.read_text().partition(f"<!-- {mark} -->\n")
    if not found or "<!-- end -->" not in rest:
        raise SystemExit(f"{path.name} has no <!-- {mark} --> ... <!-- end -->")
    path.write_text(before + found + made + "\n<!-- end -->" + rest.partition("<!-- end -->")[2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "demo", type=Path, nargs="?", default=ROOT / "demo", help="the demo's folder"
    )
    demo = parser.parse_args().demo
    draw_picture(demo)
    shutil.copyfile(demo / "train" / "curves.png", CURVES)
    put(README, "figures", figures_table(json.loads(FIGURES.read_text())))
    put(README, "training", training_block(demo, False))
    if TRAINING.is_file():
        put(TRAINING, "training", training_block(demo, True))


if __name__ == "__main__":
    main()
