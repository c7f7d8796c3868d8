"""Trains the demonstration models on Fashion-MNIST garments pasted on photos.

    .venv/bin/python scripts/train_garments.py                # everything, about 25 minutes
    .venv/bin/python scripts/train_garments.py --stage export # only write the files again

Stages, all of them by default:
  vit       one small ViT, trained at once to name the garment of an image (head on the
            class token) and to label its pixels (1x1 convolution on the patch tokens);
            at most 15 minutes.
  detector  torchvision's Faster R-CNN over a simple pyramid of that ViT, which stays as it
            is; at most 8 minutes.
  scenes    held-out scenes (photos and garments that training never saw): testdata/scenes.
  evaluate  held-out figures: testdata/models/figures.json.
  export    testdata/models/*.pt, self-described model files with references.

Checkpoints stay in testdata/generated/garments. Minutes are processor time of one thread;
more threads hardly help models of this size. The backgrounds of training and of testing
are different photos; garments come from the training and the test split.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import box_iou

import garments as g
from fetch_photos import fetch
from models.detection import vit_faster_rcnn
from models.segmentation import SegmentationHead, VisionTransformerForSegmentation
from models.vision_transformer import VisionTransformer, resample_pos_embed

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "testdata" / "generated" / "garments"
MODELS = ROOT / "testdata" / "models"
SCENES = ROOT / "testdata" / "scenes"
VIT = {"img_size": 96, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
MEAN = STD = (0.5, 0.5, 0.5)
DETECTOR_STEPS = 1100


class Trainee(VisionTransformerForSegmentation):
    """Both heads on one ViT, for training only."""

    def __init__(self) -> None:
        super().__init__(num_classes=1 + len(g.CLASSES), **VIT)
        self.head = nn.Linear(self.embed_dim, len(g.CLASSES))

    def both(self, x: Tensor, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Returns class logits (B, 10) and pixel logits (B, 11, H, W).

        With rng the image is taken for a random window of a larger one: its positions are
        a window of the position embedding, resampled to a random grid. Small images then
        teach what larger ones of any size need.
        """
        x = (x - 0.5) / 0.5
        h, w = self.grid(x)
        if rng is None:
            tokens = self.tokens(x)
        else:
            side = int(rng.integers(max(h, w, 8), 19))
            pos = resample_pos_embed(self.pos_embed, 1, self.grid_size, [side, side])
            grid = pos[:, 1:].reshape(side, side, -1)
            top, left = rng.integers(0, side - h + 1), rng.integers(0, side - w + 1)
            grid = grid[top : top + h, left : left + w].reshape(1, h * w, -1)
            tokens = self.patch_embed(x) + grid
            first = (self.cls_token + pos[:, :1]).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([first, tokens], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            tokens = self.norm(tokens)
        return self.head(tokens[:, 0]), self.segment(tokens, x.shape[2], x.shape[3])


@dataclass
class Phase:
    """A part of the ViT's training. Garments are about as many pixels large in all of
    them, so that cheap small images teach what larger ones need."""

    steps: int
    single: int  # images with one garment, which also train the classifier
    single_size: int
    several: int  # images with one to five garments
    several_size: int
    peak: float  # learning rate at the start of the phase; it falls towards the next one's


PHASES = [
    Phase(1100, 128, 32, 0, 0, 1.5e-3),
    Phase(850, 64, 32, 24, 64, 1.2e-3),
    Phase(600, 24, 64, 12, 96, 8e-4),
    Phase(150, 16, 64, 6, 128, 2e-4),
]
MORE = [  # --resume: further training from the saved weights
    Phase(900, 20, 64, 20, 64, 1.2e-3),
    Phase(500, 16, 64, 10, 96, 6e-4),
]
PIXELS = (26, 44)  # side of a garment's frame in pixels


def train_vit(photos: Path, minutes: float, seed: int, resume: bool) -> None:
    """Trains the ViT and saves its state dict."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=True)
    bank = g.background_bank(g.load_photos(photos, g.TRAIN_PHOTOS), 2000, 176, rng)
    model = Trainee().train()
    phases = PHASES
    if resume:
        phases = MORE
        model.load_state_dict(torch.load(WORK / "vit.pth", weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0, weight_decay=0.05, betas=(0.9, 0.98))
    weight = torch.ones(1 + len(g.CLASSES))
    weight[0] = 0.4
    start, done, accuracy, scene_loss = time.process_time(), 0, 0.0, torch.zeros(())
    total = sum(phase.steps for phase in phases)
    for number, phase in enumerate(phases):
        following = phases[number + 1].peak if number + 1 < len(phases) else 0.0
        side = phase.single_size
        single_scale = (PIXELS[0] / side, min(0.97, 1.25 * PIXELS[1] / side))
        for step in range(phase.steps):
            rate = phase.peak + (following - phase.peak) * step / phase.steps
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (done + 1) / 100)
            backgrounds = g.draw_backgrounds(bank, phase.single, (side, side), rng)
            single = g.paste(backgrounds, data, rng, (1, 1), single_scale)
            target = torch.tensor([int(v[0]) - 1 if len(v) else -100 for v in single.labels])
            logits, pixels = model.both(single.images, rng)
            class_loss = F.cross_entropy(logits, target)
            pixel_loss = F.cross_entropy(pixels, single.mask, weight)
            loss = pixel_loss + class_loss
            if phase.several:
                size = (phase.several_size, phase.several_size)
                scale = (PIXELS[0] / size[0], PIXELS[1] / size[0])
                backgrounds = g.draw_backgrounds(bank, phase.several, size, rng)
                several = g.paste(backgrounds, data, rng, (1, 3 if size[0] == 64 else 5), scale)
                _, pixels = model.both(several.images, rng)
                scene_loss = F.cross_entropy(pixels, several.mask, weight)
                loss = loss + 1.5 * scene_loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            right = float((logits.argmax(1) == target).float().mean())
            accuracy += (right - accuracy) * 0.02
            done += 1
            if done % 50 == 0 or done == total:
                print(
                    f"vit {done:5d}/{total} loss {loss.item():.3f} pixel {pixel_loss:.3f} "
                    f"scene {scene_loss:.3f} "
                    f"class {class_loss:.3f} top-1 {accuracy:.2f} "
                    f"{time.process_time() - start:.0f} s",
                    flush=True,
                )
                torch.save(model.state_dict(), WORK / "vit.part")
            if time.process_time() - start > minutes * 60:
                break
    seconds = round(time.process_time() - start)
    stage = "vit, resumed" if resume else "vit"
    record(stage, {"steps": done, "of": total, "cpu_seconds": seconds, "seed": seed})
    torch.save(model.state_dict(), WORK / "vit.part")
    os.replace(WORK / "vit.part", WORK / "vit.pth")


def make_detector() -> FasterRCNN:
    """The detector with the trained ViT inside."""
    state = torch.load(WORK / "vit.pth", weights_only=True)
    vit = VisionTransformer(num_classes=0, **VIT)
    vit.load_state_dict({k: v for k, v in state.items() if "head" not in k})
    return vit_faster_rcnn(
        vit,
        num_classes=1 + len(g.CLASSES),
        out_channels=64,
        scales=(2, 1, 0.5),
        anchor_sizes=(20, 36, 56, 80),
        representation_size=256,
        min_size=128,
        max_size=256,
        image_mean=MEAN,
        image_std=STD,
        rpn_top_n=100,
        box_score_thresh=0.05,
        box_detections_per_img=20,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=48,
    )


def train_detector(photos: Path, steps: int, minutes: float, seed: int) -> None:
    """Trains pyramid, proposals and boxes over the frozen ViT."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=True)
    bank = g.background_bank(g.load_photos(photos, g.TRAIN_PHOTOS), 2000, 176, rng)
    model = make_detector().train()
    for parameter in model.backbone.vit.parameters():
        parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0, weight_decay=0.02)
    peak, batch, size = 1e-3, 8, (128, 128)
    scale = (PIXELS[0] / size[0], PIXELS[1] / size[0])
    start, done, mean = time.process_time(), 0, {}
    for step in range(steps):
        left = 1 - step / steps
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 100) * min(1.0, 1.5 * left)
        scenes = g.paste(g.draw_backgrounds(bank, batch, size, rng), data, rng, (1, 5), scale)
        targets = [{"boxes": b, "labels": v} for b, v in zip(scenes.boxes, scenes.labels)]
        losses = model(list(scenes.images), targets)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        done = step + 1
        for name, value in losses.items():
            mean[name] = 0.98 * mean.get(name, value.item()) + 0.02 * value.item()
        if done % 50 == 0 or done == steps:
            text = " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in mean.items())
            print(
                f"detector {done:5d}/{steps} {text} {time.process_time() - start:.0f} s", flush=True
            )
            torch.save(model.state_dict(), WORK / "detector.part")
        if time.process_time() - start > minutes * 60:
            break
    seconds = round(time.process_time() - start)
    record("detector", {"steps": done, "of": steps, "cpu_seconds": seconds, "seed": seed})
    torch.save(model.state_dict(), WORK / "detector.part")
    os.replace(WORK / "detector.part", WORK / "detector.pth")


def load_trainee() -> Trainee:
    """The trained ViT with both heads."""
    model = Trainee()
    model.load_state_dict(torch.load(WORK / "vit.pth", weights_only=True))
    return model.eval()


def load_detector() -> FasterRCNN:
    """The trained detector."""
    model = make_detector()
    model.load_state_dict(torch.load(WORK / "detector.pth", weights_only=True))
    return model.eval()


def save_scene(image: Tensor, path: Path) -> None:
    """Writes (3, H, W) 0..1 as JPEG, whole and only when it changes."""
    stream = io.BytesIO()
    pixels = (image * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, subsampling="4:4:4")
    if not path.is_file() or path.read_bytes() != stream.getvalue():
        path.write_bytes(stream.getvalue())


def save_mask(mask: Tensor, path: Path) -> None:
    """Writes (H, W) classes as an indexed PNG with Pascal VOC's colours."""
    picture = Image.fromarray(mask.to(torch.uint8).numpy(), "P")
    colours = []
    for index in range(256):
        bits = [sum((index >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)]
        colours += bits
    picture.putpalette(colours)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    if not path.is_file() or path.read_bytes() != stream.getvalue():
        path.write_bytes(stream.getvalue())


def coco_instances(truth: list[dict[str, Any]], scenes: list[g.Scenes]) -> dict[str, Any]:
    """The scenes as COCO's instances: boxes as pasted, masks of what can be seen."""
    from pycocotools import mask as rle

    images, annotations = [], []
    for number, (entry, scene) in enumerate(zip(truth, scenes), 1):
        size = {"width": entry["width"], "height": entry["height"]}
        images.append({"id": number, "file_name": entry["file"], **size})
        for garment, seen in zip(entry["garments"], scene.visible[0]):
            code = rle.encode(np.asfortranarray(seen.numpy().astype(np.uint8)))
            x1, y1, x2, y2 = garment["box"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": garment["index"],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(seen.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(g.CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def make_scenes(photos: Path, seed: int) -> None:
    """Writes six scenes with several garments and four with one, with their truth: as
    scenes.json, as COCO's instances, as masks and as a list of what the single ones show."""
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=False)
    (SCENES / "masks").mkdir(parents=True, exist_ok=True)
    truth: list[dict[str, Any]] = []
    made: list[g.Scenes] = []
    shapes = [(288, 384), (320, 480), (384, 384)]
    for number in range(10):
        several = number < 6
        photo = g.TEST_PHOTOS[number % 3]
        size = shapes[number % 3] if several else (256, 256)
        crop = g.random_crop(g.load_photos(photos, [photo])[0], size, rng)
        background = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 255
        count, scale = ((4, 6), (0.27, 0.36)) if several else ((1, 1), (0.6, 0.85))
        scene = g.paste(background, data, rng, count, scale)
        while several and (len(scene.labels[0]) < 4 or len(scene.labels[0].unique()) < 4):
            scene = g.paste(background, data, rng, count, scale)
        name = f"scene_{number + 1}.jpg" if several else f"single_{number - 5}.jpg"
        save_scene(scene.images[0], SCENES / name)
        save_mask(scene.mask[0], SCENES / "masks" / Path(name).with_suffix(".png"))
        made.append(scene)
        pixels = np.bincount(scene.mask[0].numpy().ravel(), minlength=11)
        labels = ["background", *g.CLASSES]
        truth.append(
            {
                "file": name,
                "width": size[1],
                "height": size[0],
                "photo": photo,
                "garments": [
                    {"label": labels[int(v)], "index": int(v), "box": box.tolist()}
                    for v, box in zip(scene.labels[0], scene.boxes[0])
                ],
                "pixels": {labels[i]: int(n) for i, n in enumerate(pixels) if n},
            }
        )
    (SCENES / "scenes.json").write_text(json.dumps(truth, indent=1) + "\n")
    instances = coco_instances(truth, made)
    (SCENES / "instances.json").write_text(json.dumps(instances, indent=1) + "\n")
    singles = [f"{t['file']},{t['garments'][0]['label']}\n" for t in truth[6:]]
    (SCENES / "singles.csv").write_text("path,label\n" + "".join(singles))


def average_precision(
    found: list[tuple[Tensor, Tensor, Tensor]], truth: list[tuple[Tensor, Tensor]], label: int
) -> float:
    """AP at IoU 0.5 of one class, area under the interpolated curve; nan without truth.

    found holds (boxes, scores, labels) and truth (boxes, labels) for each image.
    """
    rows: list[tuple[float, bool]] = []
    total = 0
    for (boxes, scores, labels), (true_boxes, true_labels) in zip(found, truth):
        wanted = true_boxes[true_labels == label]
        total += len(wanted)
        taken = [False] * len(wanted)
        kept = labels == label
        order = scores[kept].argsort(descending=True)
        for box, score in zip(boxes[kept][order], scores[kept][order]):
            hit = False
            if len(wanted):
                overlap = box_iou(box[None], wanted)[0]
                best = int(overlap.argmax())
                hit = float(overlap[best]) >= 0.5 and not taken[best]
                taken[best] = taken[best] or hit
            rows.append((float(score), hit))
    if total == 0:
        return float("nan")
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows]) if rows else np.zeros(0)
    recall = hits / total
    precision = hits / np.arange(1, len(rows) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def evaluate(photos: Path, seed: int) -> None:
    """Measures all models on scenes of held-out photos and garments."""
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=False)
    bank = g.background_bank(g.load_photos(photos, g.TEST_PHOTOS), 600, 176, rng)
    model = load_trainee()
    figures: dict[str, Any] = {}
    right = seen = 0
    confusion = np.zeros((11, 11), np.int64)
    with torch.inference_mode():
        side = 64
        scale = (PIXELS[0] / side, 1.25 * PIXELS[1] / side)
        for _ in range(20):
            scenes = g.paste(
                g.draw_backgrounds(bank, 100, (side, side), rng), data, rng, (1, 1), scale
            )
            target = torch.tensor([int(v[0]) - 1 if len(v) else -1 for v in scenes.labels])
            logits, _ = model.both(scenes.images)
            right += int((logits.argmax(1) == target).sum())
            seen += int((target >= 0).sum())
        figures["classification"] = {"images": seen, "top1": round(right / seen, 4)}
        size = (128, 128)
        scale = (PIXELS[0] / size[0], PIXELS[1] / size[0])
        found, truth = [], []
        detector = load_detector() if (WORK / "detector.pth").is_file() else None
        for _ in range(15):
            scenes = g.paste(g.draw_backgrounds(bank, 20, size, rng), data, rng, (1, 5), scale)
            _, pixels = model.both(scenes.images)
            pair = scenes.mask * 11 + pixels.argmax(1)
            confusion += np.bincount(pair.numpy().ravel(), minlength=121).reshape(11, 11)
            if detector is not None:
                answers = detector(list(scenes.images))
                found += [(a["boxes"], a["scores"], a["labels"]) for a in answers]
                truth += list(zip(scenes.boxes, scenes.labels))
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    iou = np.diag(confusion) / np.maximum(union, 1)
    garment = confusion[1:, 1:]
    figures["segmentation"] = {
        "images": 300,
        "miou": round(float(iou.mean()), 4),
        "iou": {n: round(float(v), 4) for n, v in zip(["background", *g.CLASSES], iou)},
        "pixel_accuracy": round(float(np.trace(confusion) / confusion.sum()), 4),
        "garment_against_background_iou": round(
            float(garment.sum() / (confusion.sum() - confusion[0, 0])), 4
        ),
    }
    if detector is not None:
        ap = [average_precision(found, truth, label) for label in range(1, 11)]
        boxes_only = average_precision(
            [(b, s, torch.ones_like(v)) for b, s, v in found],
            [(b, torch.ones_like(v)) for b, v in truth],
            1,
        )
        figures["detection"] = {
            "images": len(truth),
            "ap50": round(float(np.nanmean(ap)), 4),
            "ap50_by_class": {n: round(v, 4) for n, v in zip(g.CLASSES, ap)},
            "ap50_any_class": round(boxes_only, 4),
        }
    log = WORK / "log.json"
    figures["training"] = json.loads(log.read_text()) if log.is_file() else {}
    MODELS.mkdir(parents=True, exist_ok=True)
    (MODELS / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def export_models() -> None:
    """Writes the four model files."""
    import reference_files

    torch.set_num_threads(1)
    trained = load_trainee().state_dict()
    size = (VIT["img_size"], VIT["img_size"])
    labels = ["background", *g.CLASSES]
    single = reference_files.photo_bytes(256, SCENES / "single_1.jpg")
    scene = reference_files.photo_bytes(144, SCENES / "scene_1.jpg")

    vit = VisionTransformer(num_classes=len(g.CLASSES), **VIT)
    vit.load_state_dict({k: v for k, v in trained.items() if "segmentation_head" not in k})
    spec = reference_files.preprocess_spec(
        (64, 64), list(MEAN), list(STD), interpolation="bilinear"
    )
    reference_files.write_vit(
        vit,
        MODELS / "garments_vit.pt",
        "vision_transformer",
        "classification",
        (64, 64),
        True,
        spec,
        g.CLASSES,
        single,
    )
    segmenter = VisionTransformerForSegmentation(num_classes=len(labels), **VIT)
    segmenter.load_state_dict({k: v for k, v in trained.items() if not k.startswith("head.")})
    spec = reference_files.preprocess_spec(
        (128, 128),
        list(MEAN),
        list(STD),
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[128],
        multiple_of=VIT["patch_size"],
    )
    # The same ViT with this preprocess, for a head beside it: the classifier's own size is
    # too small for scenes with several garments.
    reference_files.write_vit(
        vit,
        MODELS / "garments_vit_scenes.pt",
        "vision_transformer",
        "classification",
        (128, 128),
        True,
        spec,
        g.CLASSES,
        scene,
    )
    reference_files.write_vit(
        segmenter,
        MODELS / "garments_segmentation.pt",
        "vision_transformer_for_segmentation",
        "segmentation",
        (128, 128),
        True,
        spec,
        labels,
        scene,
    )
    head = SegmentationHead(VIT["embed_dim"], len(labels), VIT["patch_size"], 1)
    head.load_state_dict(segmenter.segmentation_head.state_dict())
    reference_files.write_head(head, MODELS / "garments_segmentation_head.pt", size, labels)
    reference_files.write_detector(
        load_detector(),
        MODELS / "garments_detector.pt",
        "vit_faster_rcnn",
        ["__background__", *g.CLASSES],
        0.5,
        scene,
    )
    for path in sorted(MODELS.glob("*.pt")):
        megabytes = path.stat().st_size / 1e6
        print(f"{path.name}: {megabytes:.1f} MB")
        if megabytes > 12:
            raise SystemExit(f"{path.name} is larger than 12 MB")


def record(stage: str, facts: dict) -> None:
    """Keeps what a stage did, for the figures."""
    path = WORK / "log.json"
    log = json.loads(path.read_text()) if path.is_file() else {}
    log[stage] = facts
    path.write_text(json.dumps(log, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = ["vit", "detector", "scenes", "evaluate", "export"]
    parser.add_argument("--stage", action="append", choices=stages, help="may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument("--resume", action="store_true", help="train the saved ViT further")
    parser.add_argument("--vit-minutes", type=float, default=15, help="limit (default 15)")
    parser.add_argument("--detector-minutes", type=float, default=8, help="limit (default 8)")
    args = parser.parse_args()
    chosen = args.stage or stages
    torch.set_num_threads(args.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    photos = fetch()
    if "vit" in chosen:
        train_vit(photos, args.vit_minutes, args.seed + 10 * args.resume, args.resume)
    if "detector" in chosen:
        train_detector(photos, DETECTOR_STEPS, args.detector_minutes, args.seed)
    if "scenes" in chosen:
        make_scenes(photos, args.seed)
    if "evaluate" in chosen:
        evaluate(photos, args.seed + 1)
    if "export" in chosen:
        export_models()


if __name__ == "__main__":
    main()
