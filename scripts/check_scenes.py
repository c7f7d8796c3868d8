"""Checks the scenes of make_scenes.py: that they are exact, shared by no two splits, and
the same each time.

    .venv/bin/python scripts/check_scenes.py                            # testdata/scenes*
    .venv/bin/python scripts/check_scenes.py testdata/generated/scenes  # and a made data set

Masks must not overlap, areas and boxes must be pycocotools' own, garments and backgrounds
must be those of the split, none used twice and none in another split. Scenes of made-up
garments are written by one process and by two, which must give the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

import make_scenes as scenes
from garments import CLASSES, TEST_PHOTOS, TRAIN_PHOTOS

#: Fashion-MNIST's training and test split.
SIZES = {True: 60000, False: 10000}


def demand(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(what)


def pool(split: scenes.Split) -> range:
    """The garments that a split may take."""
    size = SIZES[split.train]
    return range(round(split.part[0] * size), round(split.part[1] * size))


def check_splits() -> None:
    """No two splits may take the same garment, photo or kind of texture."""
    splits = list(scenes.SPLITS.values())
    for i, a in enumerate(splits):
        for b in splits[:i]:
            both = f"{a.name} and {b.name}"
            demand(not set(a.photos) & set(b.photos), f"{both} have a photo in common")
            demand(not set(a.textures) & set(b.textures), f"{both} have a texture in common")
            shared = a.train == b.train and set(pool(a)) & set(pool(b))
            demand(not shared, f"{both} have garments in common")
    for name, photos in (("train", TRAIN_PHOTOS), ("test", TEST_PHOTOS)):
        own = set(photos) <= set(scenes.SPLITS[name].photos)
        demand(own, f"pretraining's {name} photos are of another split")
    demand({t for s in splits for t in s.textures} == set(scenes.TEXTURES), "a texture unused")


def check_instances(path: Path, pictures: Path, split: scenes.Split) -> Counter[str]:
    """Checks one split's annotations and returns how often each class comes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    demand([coco.cats[i + 1]["name"] for i in range(10)] == CLASSES, f"{path}: other classes")
    backgrounds = {f"photo:{p}" for p in split.photos} | {f"texture:{t}" for t in split.textures}
    used: list[int] = []
    counts: Counter[str] = Counter()
    for number, image in coco.imgs.items():
        where = f"{path}: {image['file_name']}"
        with Image.open(pictures / image["file_name"]) as picture:
            demand(picture.size == (image["width"], image["height"]), f"{where}: another size")
        demand(image["background"] in backgrounds, f"{where}: {image['background']}")
        entries = coco.imgToAnns[number]
        demand(len(entries) > 0, f"{where}: no garment")
        demand([e["garment"] for e in entries] == image["garments"], f"{where}: other garments")
        used += image["garments"]
        total = np.zeros((image["height"], image["width"]), np.uint8)
        for entry in entries:
            code = coco.annToRLE(entry)
            mask = rle.decode(code)
            demand(mask.shape == total.shape, f"{where}: a mask of another size")
            demand(entry["area"] == rle.area(code) == mask.sum() > 0, f"{where}: another area")
            demand(entry["bbox"] == rle.toBbox(code).tolist(), f"{where}: another box")
            total += mask
            counts[CLASSES[entry["category_id"] - 1]] += 1
        demand(total.max() == 1, f"{where}: masks overlap")
    demand(len(set(used)) == len(used), f"{path}: a garment comes twice")
    demand(set(used) <= set(pool(split)), f"{path}: garments of another split")
    uneven = max(counts.values()) > 1.4 * min(counts[c] for c in CLASSES)
    demand(len(used) < 500 or not uneven, f"{path}: classes are uneven: {counts}")
    return counts


def check_testdata(folder: Path) -> Counter[str]:
    """Checks the part in git in its three forms."""
    path = folder / "instances.json"
    counts = check_instances(path, folder, scenes.SPLITS["test"])
    data: dict[str, Any] = json.loads(path.read_text())
    alone = []
    for image in data["images"]:
        entries = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        classes = np.zeros((image["height"], image["width"]), np.uint8)
        for entry in entries:
            classes[rle.decode(entry["segmentation"]) == 1] = entry["category_id"]
        mask = Image.open(folder / "masks" / Path(image["file_name"]).with_suffix(".png").name)
        demand(mask.mode == "P", f"{mask.filename}: not indexed")
        demand(np.array_equal(np.asarray(mask), classes), f"{image['file_name']}: another mask")
        if image["file_name"].startswith("single_"):
            demand(len(entries) == 1, f"{image['file_name']}: {len(entries)} garments")
            alone.append(f"{image['file_name']},{CLASSES[entries[0]['category_id'] - 1]}")
    demand(len({line.split(",")[1] for line in alone}) == 10, "not one photo of each class")
    lines = (folder / "singles.csv").read_text().splitlines()
    demand(lines == ["path,label", *alone], "singles.csv says something else")
    return counts


def made_up(split: scenes.Split, seed: int) -> scenes.Maker:
    """A maker of scenes whose garments and photos are made up."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:28, :28]
    images = np.zeros((400, 28, 28), np.uint8)
    for image in images:
        ry, rx = rng.uniform(4, 13, 2)
        distance = ((y - 13.5) / ry) ** 2 + ((x - 13.5) / rx) ** 2
        body = (distance < 1) & (distance > rng.choice([0, 0.1]))
        image[body] = rng.integers(60, 255, int(body.sum()))
    photos = {}
    for i, name in enumerate(split.photos):
        shape = (300, 400, 3) if i % 2 else (300, 400)
        photos[name] = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
    return scenes.Maker(split, seed, images, np.arange(400, dtype=np.uint8) % 10, photos)


def check_drawing() -> None:
    """The same seed gives the same bytes, whatever the number of processes and scenes;
    every garment but for what others cover keeps its share."""
    split = scenes.SPLITS["val"]

    def written(seed: int, count: int, workers: int) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as tmp, contextlib.redirect_stdout(io.StringIO()):
            scenes.write_split(made_up(split, seed), count, Path(tmp), workers)
            path = Path(tmp) / "annotations" / f"instances_{split.name}.json"
            check_instances(path, Path(tmp) / split.name, split)
            return {p.name: p.read_bytes() for p in Path(tmp).rglob("*") if p.is_file()}

    one, two = written(3, 40, 1), written(3, 40, 2)
    demand(len(one) == 41 and one == two, "two workers write something else than one")
    fewer = written(3, 8, 2)
    demand(
        all(one[n] == b for n, b in fewer.items() if n.endswith("jpg")), "scenes depend on count"
    )
    other = written(4, 8, 1)
    same = [n for n, b in fewer.items() if other[n] == b]
    demand(not same, f"another seed writes the same {same}")

    maker = made_up(split, 3)
    count = covered = 0
    for number in range(40):
        scene = maker.scene(number)
        for total, visible in zip(scene.totals, scene.visible, strict=True):
            share = int(visible.sum()) / total
            demand(share >= scenes.VISIBLE, f"scene {number}: {share:.2f} of a garment is seen")
            count, covered = count + 1, covered + (share < 1)
    demand(count > 60 and covered > 10, "hardly any garment is covered by another")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="a data set that make_scenes.py made")
    args = parser.parse_args()
    check_splits()
    check_drawing()
    report = {"test": check_testdata(scenes.TESTDATA)}
    small = scenes.TESTDATA.with_name("scenes_train")
    path = small / "instances.json"
    report["small train"] = check_instances(path, small, scenes.SPLITS["train"])
    if args.folder:
        for name in ("train", "val"):
            path = args.folder / "annotations" / f"instances_{name}.json"
            report[name] = check_instances(path, args.folder / name, scenes.SPLITS[name])
    for name, counts in report.items():
        print(f"{name}: {counts.total()} garments; {dict(counts)}")


if __name__ == "__main__":
    main()
