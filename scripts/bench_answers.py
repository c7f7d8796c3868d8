"""Times everything around the forward: Go's photo-to-answer path beside Python's.

    .venv/bin/python scripts/bench_answers.py [--rounds 11]

For each task and photo both programs decode the file, preprocess it, take the same stored
output in place of the model's (so the forward costs neither anything), post-process it, draw
the picture and write every file of the answer. They run in turns, on the same cores, and the
table gives medians and ratios. Python is what one would write with Pillow, torchvision,
transformers' post-processing rules, pycocotools and supervision (with OpenCV); where
torchvision.utils and supervision can both draw a thing, the quicker one counts.

Go's half is internal/answerbench; this script builds it. The pictures of both are left in
--out to look at.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms as T
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "testdata" / "images"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
JPEG_QUALITY = 92  # internal/annotate
CLASSES = 21
TASKS = ("classify", "attend", "segment", "detect", "instances")


def photos(folder: Path) -> dict[str, Path]:
    """The photos: a large one made of rocket.jpg, and one as it is."""
    large = folder / "photo-1920x1080.jpg"
    with Image.open(IMAGES / "rocket.jpg") as image:
        image.convert("RGB").resize((1920, 1080), Image.Resampling.BICUBIC).save(large, quality=92)
    small = folder / "photo-600x400.jpg"
    small.write_bytes((IMAGES / "coffee.jpg").read_bytes())
    return {"1920x1080": large, "600x400": small}


def smooth(generator: torch.Generator, shape: list[int], coarse: int) -> Tensor:
    """Noise that has structure, as a model's answer has."""
    n, c = shape[0], shape[1]
    low = torch.randn(n, c, coarse, coarse, generator=generator)
    return F.interpolate(low, size=shape[2:], mode="bicubic") * 4


def stored_outputs(width: int, height: int) -> dict[str, np.ndarray]:
    """What the models would give for a photo of that size."""
    g = torch.Generator().manual_seed(width)
    short = 512
    h, w = (short, int(short * width / height)) if height <= width else (short, short)
    h, w = round(h / 16) * 16, round(w / 16) * 16
    n = 60
    corner = torch.rand(n, 2, generator=g) * torch.tensor([width * 0.7, height * 0.7])
    side = (0.05 + 0.25 * torch.rand(n, 2, generator=g)) * torch.tensor([width, height])
    boxes = torch.cat([corner, corner + side], dim=1)
    ys = torch.arange(height).view(1, -1, 1) + 0.5
    xs = torch.arange(width).view(1, 1, -1) + 0.5
    k = 20
    cx, cy = ((boxes[:k, 0::2].mean(1)), (boxes[:k, 1::2].mean(1)))
    rx, ry = side[:k, 0] / 2, side[:k, 1] / 2
    inside = ((xs - cx.view(-1, 1, 1)) / rx.view(-1, 1, 1)) ** 2
    inside = inside + ((ys - cy.view(-1, 1, 1)) / ry.view(-1, 1, 1)) ** 2
    return {
        "logits": (torch.randn(1, 1000, generator=g) * 3).numpy(),
        "attention": torch.softmax(torch.randn(1, 12, 197, 197, generator=g) * 2, -1).numpy(),
        "segmentation": smooth(g, [1, CLASSES, h // 16, w // 16], 6).numpy(),
        "boxes": boxes.numpy(),
        "labels": torch.randint(1, 91, (n,), generator=g).numpy(),
        "scores": torch.sort(0.3 + 0.7 * torch.rand(n, generator=g), descending=True)[0].numpy(),
        "masks": torch.sigmoid(6 * (1 - inside)).unsqueeze(1).numpy(),
    }


def write_json(path: Path, value: Any) -> None:
    """The answer as a JSON file."""
    path.write_text(json.dumps(value))


class Python:
    """The usual Python program for each task."""

    def __init__(self, out: Path) -> None:
        import supervision as sv
        from pycocotools import mask as coco_mask

        self.sv, self.coco_mask, self.out = sv, coco_mask, out
        self.classify_transform = T.Compose(
            [
                T.Resize(256, interpolation=T.InterpolationMode.BICUBIC),
                T.CenterCrop(224),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )
        self.to_tensor = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
        palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
        self.palette = palette
        import matplotlib

        self.viridis = (
            matplotlib.colormaps["viridis"].colors * np.float64(255)
            if isinstance(matplotlib.colormaps["viridis"].colors, np.ndarray)
            else np.array(matplotlib.colormaps["viridis"].colors) * 255
        )
        self.viridis = self.viridis.astype(np.uint8)

    def jpeg(self, image: Image.Image, name: str) -> None:
        """Writes a picture as Go does."""
        image.save(self.out / name, quality=JPEG_QUALITY)

    @staticmethod
    def open(path: Path) -> Image.Image:
        """Decodes a photo."""
        with Image.open(path) as image:
            return image.convert("RGB")

    def classify(self, path: Path, stored: dict[str, Tensor]) -> None:
        """Five classes as JSON."""
        self.classify_transform(self.open(path))[None]
        scores, indices = torch.softmax(stored["logits"], -1).topk(5)
        rows = [
            {"label": f"class {i}", "score": s}
            for i, s in zip(indices[0].tolist(), scores[0].tolist())
        ]
        write_json(self.out / "classify.json", rows)

    def attend(self, path: Path, stored: dict[str, Tensor]) -> None:
        """The mean of the heads over the photo."""
        photo = self.open(path)
        self.classify_transform(photo)[None]
        weights = stored["attention"][0, :, 0, 1:]
        np.save(self.out / "attend.npy", weights.numpy())
        grid = weights.mean(0).reshape(14, 14)
        grid = (grid - grid.min()) / (grid.max() - grid.min())
        heat = F.interpolate(grid[None, None], size=(photo.height, photo.width), mode="nearest")
        colours = self.viridis[(heat[0, 0] * 255).byte().numpy()]
        self.jpeg(Image.blend(photo, Image.fromarray(colours), 0.5), "attend.jpg")

    def segment(self, path: Path, stored: dict[str, Tensor]) -> None:
        """A class map as indexed PNG, and painted over the photo."""
        photo = self.open(path)
        width, height = photo.size
        w, h = (int(512 * width / height), 512) if height <= width else (512, 512)
        w, h = round(w / 16) * 16, round(h / 16) * 16
        self.to_tensor(photo.resize((w, h), Image.Resampling.BILINEAR))[None]
        logits = F.interpolate(
            stored["segmentation"], size=(height, width), mode="bilinear", align_corners=False
        )
        classes = logits.argmax(1)[0].byte().numpy()
        counts = np.bincount(classes.ravel(), minlength=CLASSES).tolist()
        write_json(self.out / "segment.json", counts)
        mask = Image.fromarray(classes, mode="P")
        mask.putpalette(self.palette.tobytes())
        mask.save(self.out / "segment.mask.png")
        self.jpeg(Image.blend(photo, mask.convert("RGB"), 0.5), "segment.jpg")

    def rows(self, stored: dict[str, Tensor], keep: Tensor) -> list[dict[str, Any]]:
        """COCO's results for boxes."""
        boxes = stored["boxes"][keep]
        xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
        labels, scores = stored["labels"][keep].tolist(), stored["scores"][keep].tolist()
        return [
            {"image_id": 1, "category_id": c, "bbox": b, "score": s}
            for c, b, s in zip(labels, xywh, scores)
        ]

    def detect_with(self, path: Path, stored: dict[str, Tensor], supervision: bool) -> None:
        """Boxes as COCO's results, and drawn with labels."""
        photo = self.open(path)
        T.functional.to_tensor(photo)
        keep = stored["scores"] >= 0.5
        write_json(self.out / "detect.json", self.rows(stored, keep))
        labels = stored["labels"][keep].tolist()
        names = [f"class {c} {s:.2f}" for c, s in zip(labels, stored["scores"][keep].tolist())]
        if supervision:
            self.jpeg(self.annotate(photo, stored, keep, names, None), "detect.jpg")
            return
        pixels = T.functional.pil_to_tensor(photo)
        drawn = draw_bounding_boxes(pixels, stored["boxes"][keep], names, width=3)
        self.jpeg(T.functional.to_pil_image(drawn), "detect.jpg")

    def annotate(
        self,
        photo: Image.Image,
        stored: dict[str, Tensor],
        keep: Tensor,
        names: list[str],
        masks: np.ndarray | None,
    ) -> Image.Image:
        """supervision's annotators."""
        sv = self.sv
        found = sv.Detections(
            xyxy=stored["boxes"][keep].numpy(),
            confidence=stored["scores"][keep].numpy(),
            class_id=stored["labels"][keep].numpy(),
            mask=masks,
        )
        scene = np.array(photo)
        if masks is not None:
            scene = sv.MaskAnnotator().annotate(scene, found)
        scene = sv.BoxAnnotator().annotate(scene, found)
        return Image.fromarray(sv.LabelAnnotator().annotate(scene, found, names))

    def instances_with(self, path: Path, stored: dict[str, Tensor], supervision: bool) -> None:
        """Boxes and masks as COCO's results with RLE, and painted over the photo."""
        photo = self.open(path)
        T.functional.to_tensor(photo)
        keep = torch.arange(len(stored["masks"]))
        rows = self.rows(stored, keep)
        masks = (stored["masks"][:, 0] > 0.5).numpy()
        packed = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
        for row, rle in zip(rows, self.coco_mask.encode(packed)):
            counts = rle["counts"].decode()
            row["segmentation"] = {"size": list(rle["size"]), "counts": counts}
        write_json(self.out / "instances.json", rows)
        labels = stored["labels"][keep].tolist()
        names = [f"class {c} {s:.2f}" for c, s in zip(labels, stored["scores"][keep].tolist())]
        if supervision:
            self.jpeg(self.annotate(photo, stored, keep, names, masks), "instances.jpg")
            return
        pixels = T.functional.pil_to_tensor(photo)
        drawn = draw_segmentation_masks(pixels, torch.from_numpy(masks), alpha=0.5)
        drawn = draw_bounding_boxes(drawn, stored["boxes"][keep], names, width=3)
        self.jpeg(T.functional.to_pil_image(drawn), "instances.jpg")

    def variants(self, task: str) -> list[Callable[[Path, dict[str, Tensor]], None]]:
        """The ways of doing a task; the quickest one counts."""
        if task in ("detect", "instances"):
            work = self.detect_with if task == "detect" else self.instances_with
            return [
                lambda path, stored: work(path, stored, True),
                lambda path, stored: work(path, stored, False),
            ]
        return [getattr(self, task)]


class Go:
    """Go's half, a process that answers line by line."""

    def __init__(self, out: Path, folder: Path) -> None:
        binary = folder / "answerbench"
        subprocess.run(
            ["go", "build", "-o", str(binary), "./internal/answerbench"], cwd=ROOT, check=True
        )
        self.process = subprocess.Popen(
            [str(binary), str(folder), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"TORCHVIT_LIBTORCH": sys.prefix, **os.environ},
        )

    def run(self, task: str, photo: str) -> float:
        """Seconds of one photo."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{task} {photo}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("internal/answerbench ended")
        return float(line)

    def close(self) -> None:
        """Ends the process; its exit status counts, which a leak makes 1."""
        assert self.process.stdin
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise SystemExit("internal/answerbench failed")


def measure(rounds: int, folder: Path, out: Path) -> list[tuple[str, str, float, float]]:
    """(task, photo, Python's median, Go's median) in seconds."""
    files = photos(folder)
    stored: dict[str, dict[str, Tensor]] = {}
    for name, path in files.items():
        with Image.open(path) as image:
            arrays = stored_outputs(*image.size)
        np.savez(folder / f"{name}.npz", **arrays)
        stored[name] = {k: torch.from_numpy(v) for k, v in arrays.items()}
    for language in ("go", "python"):
        (out / language).mkdir(parents=True, exist_ok=True)
    python, go = Python(out / "python"), Go(out / "go", folder)
    rows = []
    for name, path in files.items():
        for task in TASKS:
            variants = python.variants(task)
            times: list[list[float]] = [[] for _ in variants]
            go_times: list[float] = []
            for i in range(-2, rounds):  # two rounds to warm up
                for variant, taken in zip(variants, times):
                    start = time.perf_counter()
                    with torch.inference_mode():
                        variant(path, stored[name])
                    if i >= 0:
                        taken.append(time.perf_counter() - start)
                seconds = go.run(task, name)
                if i >= 0:
                    go_times.append(seconds)
            best = min(statistics.median(taken) for taken in times)
            rows.append((task, name, best, statistics.median(go_times)))
            print(
                f"{task} {name}: Python {best * 1e3:.1f} ms, Go {rows[-1][3] * 1e3:.1f} ms",
                file=sys.stderr,
            )
    go.close()
    return rows


def table(rows: list[tuple[str, str, float, float]]) -> str:
    """The rows in Markdown."""
    text = io.StringIO()
    print("| task | photo | Python, ms | Go, ms | Go / Python |", file=text)
    print("|---|---|---|---|---|", file=text)
    for task, name, python, go in rows:
        ratio = go / python
        print(f"| {task} | {name} | {python * 1e3:.1f} | {go * 1e3:.1f} | {ratio:.2f} |", file=text)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="folder for the answers of both")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out if args.out else Path(folder) / "answers"
        rows = measure(args.rounds, Path(folder), out.resolve())
    print(table(rows), end="")
    slower = [f"{task} {name}" for task, name, python, go in rows if go > python]
    if slower:
        raise SystemExit("slower than Python: " + ", ".join(slower))


if __name__ == "__main__":
    main()
