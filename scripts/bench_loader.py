"""Times package loader beside torch's DataLoader: images a second, without a model.

    .venv/bin/python scripts/bench_loader.py [--rounds 5] [--images 600]

Both read the scenes of testdata/generated/scenes (scripts/make_scenes.py), JPEG files of
about 256 pixels, with the same number of workers and the same augmentations to 128 pixels,
and take the mean of every batch's images in place of a model. They run in turns on the same
cores; the table gives medians.

classify  RandomResizedCrop, RandomHorizontalFlip
jitter    the same and ColorJitter(0.4, 0.4, 0.4, 0.1)
scale     ScaleJitter, crop or pad, RandomHorizontalFlip; with boxes and the class of every
          pixel, made of the objects' outlines

Python is torchvision.transforms.v2 with persistent workers, once on PIL images, which has
Go's pixels, and once on tensors of torchvision.io.decode_image; the quicker one counts. Go's
half is internal/loaderbench; this script builds it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT / "testdata" / "generated" / "scenes"
TASKS = ("classify", "jitter", "scale")
IGNORED = 255


def prepare(count: int, folder: Path) -> tuple[Path, Path]:
    """A folder of classes, by each scene's first object, and a COCO file of those scenes."""
    source = SCENES / "annotations" / "instances_train.json"
    if not source.is_file():
        raise SystemExit(f"{source} is not there: run scripts/make_scenes.py first")
    data = json.loads(source.read_text())
    names = {c["id"]: c["name"] for c in data["categories"]}
    data["images"] = data["images"][:count]
    kept = {i["id"] for i in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    first: dict[int, str] = {}
    for a in data["annotations"]:
        first.setdefault(a["image_id"], names[a["category_id"]].replace("/", "_"))
    for image in data["images"]:
        path = SCENES / "train" / image["file_name"]
        place = folder / "classes" / first[image["id"]] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
        image["file_name"] = str(path.relative_to("/"))
    annotations = folder / "instances.json"
    annotations.write_text(json.dumps(data))
    # The file's names begin at the root of the file system, where Go looks for them.
    (folder / "images").symlink_to("/")
    return folder / "classes", annotations


def read(path: Path, tensors: bool) -> Any:
    """A photo as PIL image or as tensor."""
    if tensors:
        return tv_tensors.Image(decode_image(str(path), ImageReadMode.RGB))
    with Image.open(path) as image:
        return image.convert("RGB")


def normalize() -> list[v2.Transform]:
    """Bytes to floats."""
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]


class Classes(Dataset[tuple[Tensor, int]]):
    """A folder of classes."""

    def __init__(self, folder: Path, size: int, tensors: bool, jitter: bool) -> None:
        names = sorted(p.name for p in folder.iterdir())
        self.items = [(p, i) for i, n in enumerate(names) for p in sorted((folder / n).iterdir())]
        self.tensors = tensors
        color = [v2.ColorJitter(0.4, 0.4, 0.4, 0.1)] if jitter else []
        self.transform = v2.Compose(
            [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *color, *normalize()]
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.items[i]
        return self.transform(read(path, self.tensors)), label


class CropOrPad(v2.Transform):
    """A RandomCrop of what is larger than size; what is smaller is padded at right and bottom."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2._utils.query_size(flat_inputs)
        h, w = min(height, self.size), min(width, self.size)
        top = int(torch.randint(0, height - h + 1, ()))
        left = int(torch.randint(0, width - w + 1, ()))
        return {"box": (top, left, h, w), "pad": [0, 0, self.size - w, self.size - h]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        inpt = self._call_kernel(F.crop, inpt, *params["box"])
        fill = IGNORED if isinstance(inpt, tv_tensors.Mask) else 0
        return self._call_kernel(F.pad, inpt, params["pad"], fill=fill)


class Scenes(Dataset[tuple[Any, ...]]):
    """Scenes with boxes and the class of every pixel."""

    def __init__(self, file: Path, size: int, tensors: bool) -> None:
        data = json.loads(file.read_text())
        self.images, self.objects = data["images"], defaultdict(list)
        for a in data["annotations"]:
            self.objects[a["image_id"]].append(a)
        self.tensors = tensors
        self.transform = v2.Compose(
            [
                v2.ScaleJitter((size, size)),
                CropOrPad(size),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(labels_getter=lambda sample: sample[3]),
                *normalize(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        scene = self.images[i]
        h, w = scene["height"], scene["width"]
        image = read(Path("/") / scene["file_name"], self.tensors)
        objects = self.objects[scene["id"]]
        classes = np.zeros((h, w), np.uint8)
        seen = np.zeros((h, w), bool)
        for a in objects:
            outline = a["segmentation"]
            if isinstance(outline, list):
                outline = coco_mask.merge(coco_mask.frPyObjects(outline, h, w))
            elif isinstance(outline["counts"], list):
                outline = coco_mask.frPyObjects(outline, h, w)
            inside = coco_mask.decode(outline).astype(bool)
            classes[inside] = a["category_id"]
            classes[inside & seen] = IGNORED
            seen |= inside
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return self.transform(
            (
                image,
                tv_tensors.Mask(torch.from_numpy(classes)),
                tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(h, w)),
                torch.tensor([a["category_id"] for a in objects]),
            )
        )


def collate(samples: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Images and masks stacked, boxes and labels as lists."""
    images, masks, boxes, labels = zip(*samples)
    return torch.stack(images), torch.stack(masks).long(), list(boxes), list(labels)


def python_loader(
    task: str, folder: Path, file: Path, args: argparse.Namespace, tensors: bool
) -> DataLoader[Any]:
    """The DataLoader that one would write."""
    options: dict[str, Any] = {
        "batch_size": args.batch,
        "num_workers": args.workers,
        "shuffle": True,
        "persistent_workers": True,
    }
    if task == "scale":
        return DataLoader(Scenes(file, args.size, tensors), collate_fn=collate, **options)
    return DataLoader(Classes(folder, args.size, tensors, task == "jitter"), **options)


def python_epoch(loader: DataLoader[Any]) -> tuple[float, int, float]:
    """Seconds, images, and the mean of all pixels."""
    start, images, mean = time.perf_counter(), 0, 0.0
    for batch in loader:
        mean += batch[0].mean().item() * len(batch[0])
        images += len(batch[0])
    return time.perf_counter() - start, images, mean / images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--images", type=int, default=600, help="default %(default)s")
    parser.add_argument("--size", type=int, default=128, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="default %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    slower = []
    with tempfile.TemporaryDirectory() as name:
        folder, file = prepare(args.images, Path(name))
        binary = Path(name) / "loaderbench"
        subprocess.run(
            ["go", "build", "-o", str(binary), "./internal/loaderbench"], cwd=ROOT, check=True
        )
        go = subprocess.Popen(
            [binary, folder, file, str(args.size), str(args.workers), str(args.batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"TORCHVIT_LIBTORCH": sys.prefix, **os.environ},
        )
        assert go.stdin and go.stdout
        print("| task | Python, PIL, images/s | Python, tensors | Go | Go / Python |")
        print("|---|---|---|---|---|")
        for task in TASKS:
            loaders = [
                python_loader(task, folder, file, args, tensors) for tensors in (False, True)
            ]
            rates: list[list[float]] = [[], [], []]
            means: list[list[float]] = [[], [], []]
            for i in range(-1, args.rounds):  # one round to warm up
                results = [python_epoch(loader) for loader in loaders]
                go.stdin.write(f"{task} {i + 1}\n")
                go.stdin.flush()
                line = go.stdout.readline().split()
                if not line:
                    raise SystemExit("internal/loaderbench ended")
                results.append((float(line[0]), int(line[1]), float(line[2])))
                for k, (seconds, images, mean) in enumerate(results):
                    if images != args.images:
                        raise SystemExit(f"{task}: got {images} images, want {args.images}")
                    if i >= 0:
                        rates[k].append(images / seconds)
                        means[k].append(mean)
            del loaders
            # The augmentations are the same where the pixels agree in the mean.
            if abs(np.mean(means[0]) - np.mean(means[2])) > 0.02:
                raise SystemExit(f"{task}: the means of the pixels are {means}")
            pil, tensors, ours = (statistics.median(r) for r in rates)
            ratio = ours / max(pil, tensors)
            print(f"| {task} | {pil:.0f} | {tensors:.0f} | {ours:.0f} | {ratio:.2f} |", flush=True)
            if ratio < 1:
                slower.append(task)
        go.stdin.close()
        if go.wait() != 0:
            raise SystemExit("internal/loaderbench failed")
    if slower:
        raise SystemExit("slower than Python: " + ", ".join(slower))


if __name__ == "__main__":
    main()
