"""Trains the demonstration models: a small ViT pretrained for classification, then heads.

    .venv/bin/python scripts/train.py                      # everything that is not done yet
    .venv/bin/python scripts/train.py --stage pretrain     # one stage
    .venv/bin/python scripts/train.py --quick              # a tiny run that checks resuming

Stages, in this order by default:
  pretrain       the ViT names the garment of an image (Fashion-MNIST, half of the images
                 on photos and textures)
  segmentation   VisionTransformerForSegmentation with its 1x1 head, on the scenes
  faster_rcnn    torchvision's Faster R-CNN over a simple pyramid of the ViT
  deconvolution  the same segmentation model with one transposed convolution as its head
  yolo           the YOLO-style head
  head           a 1x1 segmentation head alone; the pretrained ViT stays as it is
  evaluate       held-out figures: testdata/models/figures.json
  curves         docs/images/training/*.png and the table of docs/training.md
  export         testdata/models/*.pt, self-described model files with references

Each of the fine-tuning stages but head trains twice with the same steps, batches and schedule:
from the pretrained ViT and from scratch (--from-scratch: only the latter; --pretrained: only
the former). A stage that was stopped goes on from its last checkpoint, to the same weights
as without the stop; a finished one is not repeated unless --again is given. Checkpoints and
logs stay in testdata/generated/training.

The data: Debian's package dataset-fashion-mnist, and the scenes that make_scenes.py writes.
Layers compute in bfloat16 (autocast), weights, losses and boxes are float32.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms
from torchvision.transforms import functional as TF

import garments as g
import preprocess
from fetch_photos import fetch
from models.detection import vit_faster_rcnn
from models.segmentation import SegmentationHead, VisionTransformerForSegmentation
from models.vision_transformer import Attention, VisionTransformer, resample_pos_embed
from models.yolo import VisionTransformerYOLO, decode
from models.yolo_loss import yolo_loss

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "testdata" / "generated" / "training"
MODELS = ROOT / "testdata" / "models"
FIGURES = MODELS / "figures.json"
TEST_SCENES = ROOT / "testdata" / "scenes"
DOCS = ROOT / "docs" / "training.md"
PICTURES = ROOT / "docs" / "images" / "training"
VIT: dict[str, Any] = {
    "img_size": 128,
    "patch_size": 8,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "mlp_ratio": 3,
}


PRETRAIN_RATE = 1.2e-3
#: Of the rate from block to block towards the input, when the ViT is pretrained.
LAYER_DECAY = 0.85


# ---- One training run: schedule, log, checkpoint ------------------------------------------


@dataclass
class Run:
    """One training run. Batches and everything random are functions of (seed, step) alone,
    so that a run that was stopped goes on to the weights it would have had."""

    name: str
    model: nn.Module
    groups: list[dict[str, Any]]  # AdamW's, each with "scale", its factor on the rate
    rate: float
    warmup: int
    steps: int
    progress: Callable[[int], float]  # step -> 0..1, where the cosine is
    loss: Callable[[int], dict[str, Tensor]]  # step -> the losses, which are added
    check: Callable[[int], dict[str, float]]  # step -> held-out figures
    every: int  # steps between two checks
    clip: float = 1.0


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside the file and renames, so that a killed run leaves the old one."""
    part = path.with_name(path.name + ".part")
    write(part)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)


def read_log(name: str) -> list[dict[str, Any]]:
    """The lines of a run's log; a line cut off by a kill is left out."""
    path = WORK / f"{name}.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def finished(name: str, again: bool) -> bool:
    """Whether a run has been finished before, which is said."""
    done = (WORK / f"{name}.pth").is_file() and not again
    if done:
        print(f"{name}: done before")
    return done


def train(run: Run, minutes: float, again: bool = False, stop_at: int = 0) -> None:
    """Trains until the run is finished; ends the program after minutes, or at stop_at."""
    checkpoint, done = WORK / f"{run.name}.checkpoint", WORK / f"{run.name}.pth"
    if again:
        checkpoint.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
    run.model.train()
    Attention.forward = explicit_attention
    kinds: list[list[dict[str, Any]]] = [[], []]
    for group in run.groups:
        kinds[group.pop("matrices")].append(group)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(kinds[0], lr=run.rate, betas=(0.9, 0.99), fused=True)
    ]
    if kinds[1]:
        optimizers.append(torch.optim.Muon(kinds[1], run.rate, adjust_lr_fn="match_rms_adamw"))
    parameters = [p for group in run.groups for p in group["params"]]
    first, before = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        run.model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        first, before = state["step"], state["seconds"]
        print(f"{run.name}: goes on at step {first}", flush=True)
    log = [line for line in read_log(run.name) if line["step"] <= first]
    text = "".join(json.dumps(line) + "\n" for line in log)
    write_whole(WORK / f"{run.name}.jsonl", lambda path: path.write_text(text))
    start = saved = time.monotonic()
    seconds = before
    mean: dict[str, float] = {}
    with open(WORK / f"{run.name}.jsonl", "a") as stream:
        for step in range(first, run.steps):
            warm = min(1.0, (step + 1) / run.warmup)
            rate = run.rate * warm * (0.5 + 0.5 * np.cos(np.pi * run.progress(step)))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = float(rate) * group["scale"]
            losses = run.loss(step)
            loss = torch.stack([v for v in losses.values() if v.requires_grad]).sum()
            run.model.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, run.clip)
            for optimizer in optimizers:
                optimizer.step()
            for name, value in {"loss": loss, **losses}.items():
                mean[name] = 0.95 * mean.get(name, value.item()) + 0.05 * value.item()
            count, now = step + 1, time.monotonic()
            seconds = before + now - start
            last = count == run.steps
            if count % 20 == 0 or last:
                line: dict[str, Any] = {"step": count, "seconds": round(seconds, 1)}
                line["rate"] = round(float(rate), 7)
                line |= {name: round(value, 4) for name, value in mean.items()}
                if count % run.every == 0 or last:
                    with eval_mode(run.model):
                        line |= {k: round(v, 4) for k, v in run.check(count).items()}
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                if count % 100 == 0 or count % run.every == 0 or last:
                    words = [f"{k} {v}" for k, v in line.items() if k != "step"]
                    print(f"{run.name} {count}/{run.steps} {' '.join(words)}", flush=True)
            halt = now - start > minutes * 60 or count == stop_at
            if now - saved > 60 or last or halt:
                state = {
                    "step": count,
                    "seconds": seconds,
                    "model": run.model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                }
                write_whole(checkpoint, lambda path: torch.save(state, path))  # noqa: B023
                saved = now
            if halt and not last:
                print(f"{run.name}: stopped at step {count}; start again to go on", flush=True)
                raise SystemExit(3)
    write_whole(done, lambda path: torch.save(run.model.state_dict(), path))
    checkpoint.unlink()
    Attention.forward = ATTENTION


class eval_mode:
    """Evaluation mode without gradients, for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.model.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        self.model.train()


def parameter_groups(model: nn.Module, decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups with layer-wise decay of the rate: the heads have 1, the ViT's last block
    decay, ... its embeddings decay^(depth+1). The matrices of the blocks are Muon's, the
    others AdamW's. No weight decay for 1-d parameters, positions and the class token."""
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = name.split("vit.", 1)[-1]
        depth = VIT["depth"]
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        elif name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        else:
            layer = depth + 1
        plain = parameter.ndim < 2 or name in ("cls_token", "pos_embed")
        matrix = name.startswith("blocks.") and parameter.ndim == 2
        key = (decay ** (depth + 1 - layer), 0.0 if plain else 0.05, matrix)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": params, "scale": scale, "weight_decay": weight, "matrices": matrix}
        for (scale, weight, matrix), params in groups.items()
    ]


def seeds(*numbers: int) -> np.random.Generator:
    """The generator of a batch; seeds torch's as well."""
    rng = np.random.default_rng(numbers)
    torch.manual_seed(int(rng.integers(2**31)))
    return rng


# ---- What makes the ViT cheaper to train; exported files keep F.scaled_dot_product_attention


ATTENTION = Attention.forward


def explicit_attention(self: Attention, x: Tensor) -> Tensor:
    """Attention.forward in bfloat16: on CPUs its backward is 1.6 times as fast as flash
    attention's."""
    q, k, v = self.project(x)
    weights = ((q * self.scale).contiguous() @ k.transpose(-2, -1)).softmax(-1, dtype=q.dtype)
    return self.merge(weights @ v)


def windowed_embed(
    vit: VisionTransformer, rng: np.random.Generator, largest: int, keep: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """A replacement of vit.embed for one training batch.

    The image is taken for a random window of a larger one, of up to largest patches a side:
    its positions are a window of the position embedding, resampled to the larger grid. Small
    images teach so what larger ones of any shape need. With keep < 1 that part of the
    patches, drawn for each image, is used.
    """

    def embed(x: Tensor) -> Tensor:
        h, w = vit.grid(x)
        gh, gw = (int(rng.integers(v, max(v, largest) + 1)) for v in (h, w))
        pos = resample_pos_embed(vit.pos_embed, 1, vit.grid_size, [gh, gw])
        top, left = int(rng.integers(0, gh - h + 1)), int(rng.integers(0, gw - w + 1))
        grid = pos[:, 1:].reshape(gh, gw, -1)[top : top + h, left : left + w]
        tokens = vit.patch_embed(x) + grid.reshape(1, h * w, -1)
        if keep < 1:
            count = round(keep * h * w)
            index = torch.rand(len(x), h * w).argsort(1)[:, :count, None]
            tokens = tokens.gather(1, index.expand(-1, -1, tokens.shape[2]))
        first = (vit.cls_token + pos[:, :1]).expand(len(x), -1, -1)
        return torch.cat([first.to(tokens.dtype), tokens], dim=1)

    return embed


class training_embed:
    """Puts a replacement of vit.embed in place for a while."""

    def __init__(self, vit: VisionTransformer, embed: Callable[[Tensor], Tensor] | None) -> None:
        self.vit, self.embed = vit, embed

    def __enter__(self) -> None:
        if self.embed is not None:
            self.vit.__dict__["embed"] = self.embed

    def __exit__(self, *error: object) -> None:
        self.vit.__dict__.pop("embed", None)


def new_vit(seed: int, num_classes: int) -> VisionTransformer:
    """A ViT before any training, with a start that suits few images and steps: attention
    that looks at like tokens and at its own (Trockman and Kolter, Mimetic Initialization of
    Self-Attention Layers, 2023), and sine positions (period 4 to 48 patches)."""
    torch.manual_seed(seed)
    vit = VisionTransformer(num_classes=num_classes, **VIT)
    width, heads, side = vit.embed_dim, vit.num_heads, vit.grid_size[0]
    each = width // heads
    one, noise = torch.eye(width), width**-0.5
    for block in vit.blocks:
        queries, keys = [], []
        for _ in range(heads):
            u, s, v = torch.linalg.svd(0.7 * (one + noise * torch.randn(width, width)))
            root = s[:each].sqrt()
            queries.append((u[:, :each] * root).T)
            keys.append(v[:each] * root[:, None])
        u, s, v = torch.linalg.svd(0.4 * (noise * torch.randn(width, width) - one))
        values = (u * s.sqrt()).T
        block.attn.qkv.weight.data = torch.cat([*queries, *keys, values])
        block.attn.proj.weight.data = v.T * s.sqrt()
    turns = 2 * torch.pi / torch.logspace(np.log10(4), np.log10(48), width // 4)
    waves = torch.arange(side)[:, None] * turns
    waves = 0.5 * torch.cat([waves.sin(), waves.cos()], dim=1)
    down = waves[:, None].expand(side, side, -1)
    across = waves[None].expand(side, side, -1)
    vit.pos_embed.data[0, 1:] = torch.cat([down, across], dim=2).flatten(0, 1)
    return vit


def bfloat16() -> torch.autocast:
    """The precision of the layers."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def normalised(images: Tensor) -> Tensor:
    """0..1 -> -1..1, mean and std of the exported files."""
    return (images - 0.5) / 0.5


# ---- Pretraining: classification ----------------------------------------------------------


@dataclass
class Phase:
    """A part of pretraining; cost is relative, for the schedule."""

    size: int
    batch: int
    steps: int
    keep: float
    scale: tuple[float, float]  # of a garment on a background, relative to the image
    seconds: float  # measured, for the schedule of the rate


#: Two runs, each with its own warm-up and cosine, the second from the first one's weights.
#: Small images first; the garments are 5 to 16 patches a side in the end.
PRETRAINING = {
    "pretrain": [
        Phase(48, 64, 1500, 1.0, (0.7, 1.1), 0.33),
        Phase(64, 64, 700, 1.0, (0.6, 1.1), 0.50),
        Phase(96, 48, 800, 0.6, (0.5, 1.1), 0.51),
        Phase(128, 16, 500, 1.0, (0.4, 1.05), 0.52),
    ],
    "pretrain_on": [
        Phase(64, 64, 1500, 1.0, (0.6, 1.1), 0.50),
        Phase(96, 48, 1500, 0.6, (0.5, 1.1), 0.51),
        Phase(128, 16, 1000, 1.0, (0.4, 1.05), 0.52),
    ],
}


def texture(size: int, rng: np.random.Generator) -> Tensor:
    """A procedural background, (3, size, size) 0..1: smooth noise, stripes or checks."""
    first, second = (torch.from_numpy(rng.random((3, 1, 1))).float() for _ in range(2))
    kind = rng.integers(4)
    if kind < 2:
        cells = int(rng.integers(2, 40))
        noise = torch.from_numpy(rng.random((1, 1 if kind else 3, cells, cells))).float()
        mode = "bicubic" if rng.random() < 0.7 else "nearest"
        amount = F.interpolate(noise, size=(size, size), mode=mode)[0].clamp(0, 1)
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 40)
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        wave = torch.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        if kind == 3:
            wave = wave * torch.sin((y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period))
        amount = (0.5 + rng.uniform(0.6, 6) * wave)[None].clamp(0, 1).float()
    grain = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.08), (3, size, size))).float()
    return (first + (second - first) * amount + grain).clamp(0, 1)


def background_banks(names: list[str], seed: int, count: int = 2400) -> dict[int, Tensor]:
    """Backgrounds for images of 32, 64 and 128 pixels: uint8 (n, 3, 1.25 s, 1.25 s)."""
    rng = np.random.default_rng(seed)
    photos = g.background_bank(g.load_photos(fetch(), names), count * 2 // 3, 160, rng)
    made = torch.stack([texture(160, rng) for _ in range(count // 3)])
    bank = torch.cat([photos, (made * 255).to(torch.uint8)])
    banks = {128: bank}
    for size in (96, 64, 48, 32):
        small = F.interpolate(bank.float(), size=(size * 5 // 4,) * 2, mode="area")
        banks[size] = small.to(torch.uint8)
    return banks


def single_garments(
    data: g.Garments,
    picks: np.ndarray,
    backgrounds: Tensor,
    plain: np.ndarray,
    scale: tuple[float, float],
    rng: np.random.Generator,
) -> Tensor:
    """One garment an image, (B, 3, H, W) 0..1: plain ones on black, as Fashion-MNIST has
    them but a little moved, the others turned and tinted on their background."""
    batch, _, height, width = backgrounds.shape
    side = np.where(plain, rng.uniform(0.85, 1.1, batch), rng.uniform(*scale, batch))
    free = np.maximum(1 - side, 0.06)
    cx, cy = (rng.uniform(-1, 1, batch) * free for _ in range(2))
    angle = np.deg2rad(rng.uniform(-1, 1, batch) * np.where(plain, 8, 22))
    flip = np.where(rng.random(batch) < 0.5, -1.0, 1.0)
    stretch = np.exp(rng.uniform(-0.1, 0.1, batch))
    cos, sin = np.cos(angle) / side, np.sin(angle) / side
    matrix = [
        [flip * cos * stretch, flip * sin * stretch, -flip * stretch * (cos * cx + sin * cy)],
        [-sin / stretch, cos / stretch, (sin * cx - cos * cy) / stretch],
    ]
    theta = torch.from_numpy(np.array(matrix).transpose(2, 0, 1)).float()
    grid = F.affine_grid(theta, [batch, 2, height, width], align_corners=False)
    layer = F.grid_sample(data.pixels[picks].float() / 255, grid, align_corners=False)
    grey, alpha = layer[:, :1], layer[:, 1:]
    bare = torch.from_numpy(plain)[:, None, None, None]
    gain = torch.from_numpy(rng.uniform(0.55, 1.1, (batch, 1, 1, 1))).float()
    dark = torch.from_numpy(rng.uniform(0.0, 0.5, (batch, 1, 1, 1))).float()
    tint = torch.from_numpy(rng.uniform(0.25, 1.0, (batch, 3, 1, 1))).float()
    shade = grey / alpha.clamp(min=1e-3)
    pasted = backgrounds * (1 - alpha) + (dark + (1 - dark) * shade) * tint * alpha
    return torch.where(bare, grey * gain, pasted).clamp(0, 1)


def draw(bank: Tensor, batch: int, size: int, rng: np.random.Generator) -> Tensor:
    """Backgrounds from a bank, with changed brightness, contrast and colour."""
    return g.draw_backgrounds(bank, batch, (size, size), rng)


def garment_bank(train_split: bool) -> g.Garments:
    """Fashion-MNIST as uint8 (n, 2, 28, 28), grey and alpha."""
    data = g.load_garments(train=train_split)
    return g.Garments((data.pixels * 255 + 0.5).to(torch.uint8), data.labels)


def plain_images(data: g.Garments, picks: slice, size: int) -> Tensor:
    """Fashion-MNIST's images as they are, resized, (n, 3, size, size) 0..1."""
    grey = data.pixels[picks, :1].float() / 255
    grey = F.interpolate(grey, size=(size, size), mode="bilinear")
    return grey.expand(-1, 3, -1, -1).contiguous()


def top1(vit: VisionTransformer, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class is right."""
    right = 0
    with bfloat16():
        for some, truth in zip(images.split(128), labels.split(128)):
            right += int((vit(normalised(some)).argmax(1) == truth).sum())
    return right / len(labels)


def pretrain(
    name: str, seed: int, phases: list[Phase], count: int = 500, backgrounds: int = 2400
) -> Run:
    """A run of pretraining; count garments of the test split are looked at meanwhile."""
    banks = background_banks(g.TRAIN_PHOTOS, seed, backgrounds)
    held_out = background_banks(g.TEST_PHOTOS, seed + 1, backgrounds)
    data, test = garment_bank(True), garment_bank(False)
    vit = new_vit(seed, len(g.CLASSES))
    part = list(PRETRAINING).index(name)
    if part:
        before = list(PRETRAINING)[part - 1]
        vit.load_state_dict(torch.load(WORK / f"{before}.pth", weights_only=True))
    ends = np.cumsum([phase.steps for phase in phases])
    costs = np.concatenate([np.full(p.steps, p.seconds) for p in phases])
    progress = np.concatenate([[0.0], np.cumsum(costs) / costs.sum()])

    def loss(step: int) -> dict[str, Tensor]:
        phase = phases[int(np.searchsorted(ends, step, side="right"))]
        rng = seeds(seed, 1 + 10 * part, step)
        picks = rng.integers(0, len(data.labels), phase.batch)
        backgrounds = draw(banks[phase.size], phase.batch, phase.size, rng)
        plain = rng.random(phase.batch) < 0.5
        images = single_garments(data, picks, backgrounds, plain, phase.scale, rng)
        largest = 0 if rng.random() < 0.85 else 20
        embed = windowed_embed(vit, rng, largest, phase.keep)
        with training_embed(vit, embed), bfloat16():
            logits = vit(normalised(images))
        target = data.labels[picks]
        return {"classes": F.cross_entropy(logits.float(), target, label_smoothing=0.05)}

    def check(step: int) -> dict[str, float]:
        phase = phases[min(int(np.searchsorted(ends, step)), len(phases) - 1)]
        size, rng = phase.size, np.random.default_rng(seed + 2)
        truth = test.labels[:count]
        picks = np.arange(count)
        backgrounds = draw(held_out[size], count, size, rng)
        scale = (0.6, 1.0) if size > 32 else (0.85, 1.0)
        pasted = single_garments(test, picks, backgrounds, np.zeros(count, bool), scale, rng)
        plain = plain_images(test, slice(0, count), size)
        return {"top1": top1(vit, plain, truth), "top1_photos": top1(vit, pasted, truth)}

    return Run(
        name=name,
        model=vit,
        groups=parameter_groups(vit),
        rate=PRETRAIN_RATE,
        warmup=50,
        steps=int(ends[-1]),
        progress=lambda step: float(progress[step]),
        loss=loss,
        check=check,
        every=500,
    )


# ---- The scenes ---------------------------------------------------------------------------

SIDE = 128
LABELS = ["background", *g.CLASSES]
SCENES = ROOT / "testdata" / "generated" / "scenes"
GREY = 114 / 255  # what is beside an image, as letterboxes have it


@dataclass
class Scenes:
    """A data set in memory, every image with its shortest edge at SIDE: images uint8
    (3, h, w), masks uint8 (h, w), boxes float32 (n, 4) xyxy and labels (n) 1..10; scales are
    (x, y) of those pixels to the image's own; ids are COCO's."""

    images: list[Tensor]
    masks: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]
    scales: list[Tensor]
    ids: list[int]


def instances_path(split: str) -> Path:
    """The annotations of a split."""
    return SCENES / "annotations" / f"instances_{split}.json"


def coco(split: str) -> Any:
    """The COCO data set of a split, read quietly."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(instances_path(split))


def load_scenes(split: str, limit: int = 0) -> Scenes:
    """Reads the scenes of a split, or the first of them; the whole split is kept in a file
    beside the checkpoints."""
    if not instances_path(split).is_file():
        raise SystemExit(f"{SCENES}: no scenes; run scripts/make_scenes.py")
    key = hashlib.sha256(instances_path(split).read_bytes()).hexdigest()[:16]
    cache = WORK / f"scenes_{split}_{key}.pt"
    if cache.is_file() and not limit:
        return Scenes(**torch.load(cache, weights_only=True))
    data, scenes = coco(split), Scenes([], [], [], [], [], [])
    for number in sorted(data.imgs)[: limit or None]:
        entry = data.imgs[number]
        image = preprocess.decode(SCENES / split / entry["file_name"])
        height, width = image.height, image.width
        image = preprocess.resize(image, {"resize": {"rule": "shortest_edge", "size": [SIDE]}})
        mask = torch.zeros(1, 1, height, width)
        boxes, labels = [], []
        for annotation in data.loadAnns(data.getAnnIds(number)):
            mask[0, 0][torch.from_numpy(data.annToMask(annotation)) > 0] = annotation["category_id"]
            x, y, w, h = annotation["bbox"]
            boxes.append([x, y, x + w, y + h])
            labels.append(annotation["category_id"])
        size = (image.height, image.width)
        scale = torch.tensor([width / size[1], height / size[0]])
        mask = F.interpolate(mask, size=size, mode="nearest-exact")[0, 0]
        scenes.images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
        scenes.masks.append(mask.to(torch.uint8))
        scenes.boxes.append(torch.tensor(boxes).reshape(-1, 4) / scale.repeat(2))
        scenes.labels.append(torch.tensor(labels))
        scenes.scales.append(scale)
        scenes.ids.append(number)
    if not limit:
        write_whole(cache, lambda path: torch.save(vars(scenes), path))
    return scenes


def scene_batch(
    scenes: Scenes, picks: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Images (B, 3, side, side) 0..1, masks with 255 beside the image, boxes and labels:
    resized, moved, flipped and recoloured at random. Boxes of which less than 0.4 is left
    are dropped. With a side below SIDE the images are smaller and cut off."""
    images = torch.full((len(picks), 3, side, side), GREY)
    masks = torch.full((len(picks), side, side), 255, dtype=torch.int64)
    factor = (side / SIDE) ** 0.5
    boxes, labels = [], []
    for i, pick in enumerate(picks):
        image, mask = scenes.images[pick], scenes.masks[pick]
        scale = factor * float(np.exp(rng.uniform(np.log(0.75), np.log(1.25))))
        h, w = (round(v * scale) for v in image.shape[1:])
        sx, sy = w / image.shape[2], h / image.shape[1]
        resized = F.interpolate(
            image[None].float(), size=(h, w), mode="bilinear", align_corners=False
        )[0]
        coarse = F.interpolate(mask[None, None].float(), size=(h, w), mode="nearest-exact")[0, 0]
        box = scenes.boxes[pick] * torch.tensor([sx, sy, sx, sy])
        if rng.random() < 0.5:
            resized, coarse = resized.flip(2), coarse.flip(1)
            box = torch.stack([w - box[:, 2], box[:, 1], w - box[:, 0], box[:, 3]], dim=1)
        left, top = (int(rng.integers(min(0, side - v), max(0, side - v) + 1)) for v in (w, h))
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, side), min(top + h, side)
        images[i, :, y1:y2, x1:x2] = resized[:, y1 - top : y2 - top, x1 - left : x2 - left] / 255
        masks[i, y1:y2, x1:x2] = coarse[y1 - top : y2 - top, x1 - left : x2 - left].long()
        box = box + torch.tensor([left, top, left, top])
        area = (box[:, 2:] - box[:, :2]).prod(1)
        box = box.clamp(0, side)
        size = box[:, 2:] - box[:, :2]
        kept = (size.prod(1) > 0.4 * area) & (size > 3).all(1)
        boxes.append(box[kept])
        labels.append(scenes.labels[pick][kept])
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (len(picks), 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(picks), 1, 1, 1))).float()
    return (images * gain + shift).clamp(0, 1), masks, boxes, labels


def shuffled(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The step's part of endless epochs, each in its own order."""
    index = np.arange(step * batch, (step + 1) * batch)
    epochs = {
        e: np.random.default_rng([seed, 3, e]).permutation(count) for e in set(index // count)
    }
    return np.array([epochs[i // count][i % count] for i in index])


# ---- Held-out figures ---------------------------------------------------------------------


def even(image: Tensor) -> Tensor:
    """An image (3, h, w) uint8 as (1, 3, H, W) 0..1 whose sides are multiples of the patch,
    as the exported files' preprocess makes it from the scene."""
    patch = VIT["patch_size"]
    size = [max(patch, round(v / patch) * patch) for v in image.shape[1:]]
    images = image[None].float() / 255
    if list(image.shape[1:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images


def segmentation_figures(
    model: nn.Module, images: Iterable[Tensor], masks: Iterable[Tensor]
) -> dict[str, Any]:
    """mIoU of the 11 classes over all pixels of all masks, IoU of each, share of right
    pixels. Images are uint8; logits are resized to the mask's size, bilinear."""
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for image, mask in zip(images, masks):
        logits = model(normalised(even(image))).float()
        if logits.shape[2:] != mask.shape:
            logits = F.interpolate(logits, size=mask.shape, mode="bilinear", align_corners=False)
        pair = mask.long() * len(LABELS) + logits.argmax(1)[0]
        confusion += np.bincount(pair.numpy().ravel(), minlength=confusion.size).reshape(
            confusion.shape
        )
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    iou = np.diag(confusion) / np.maximum(union, 1)
    garment = confusion[1:, 1:].sum()
    return {
        "miou": float(iou.mean()),
        "pixel_accuracy": float(np.trace(confusion) / confusion.sum()),
        "garment_against_background_iou": float(garment / (confusion.sum() - confusion[0, 0])),
        "iou": dict(zip(LABELS, iou.tolist())),
    }


Found = tuple[Tensor, Tensor, Tensor]  # boxes xyxy, scores, labels 1..10 of one image


def detection_figures(
    truth: Any, found: Callable[[int], Found], scenes: Scenes, count: int = 0
) -> dict[str, Any]:
    """COCOeval's AP, AP50 and AR of boxes; found gives an image's boxes in its pixels as
    the scenes have them; AP50 by class, and of any class."""
    from pycocotools.cocoeval import COCOeval

    ids = scenes.ids[: count or None]
    rows = []
    for i, number in enumerate(ids):
        boxes, scores, labels = found(i)
        boxes = (boxes * scenes.scales[i].repeat(2)).tolist()
        for box, score, label in zip(boxes, scores.tolist(), labels.tolist()):
            x1, y1, x2, y2 = box
            rows.append([number, x1, y1, x2 - x1, y2 - y1, score, label])
    if not rows:
        return {"ap50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        answer = truth.loadRes(np.array(rows))
        figures = {}
        for use in (1, 0):
            measure = COCOeval(truth, answer, "bbox")
            measure.params.imgIds, measure.params.useCats = ids, use
            measure.evaluate()
            measure.accumulate()
            precision = measure.eval["precision"]  # IoU, recall, class, area, detections
            if not use:
                figures["ap50_any_class"] = float(precision[0, :, 0, 0, 2].mean())
                break
            measure.summarize()
            by_class = np.ma.masked_less(precision[0, :, :, 0, 2], 0).mean(0)
            figures |= {
                "ap": float(measure.stats[0]),
                "ap50": float(measure.stats[1]),
                "ap75": float(measure.stats[2]),
                "ar100": float(measure.stats[8]),
                "ap50_by_class": dict(zip(g.CLASSES, by_class.filled(-1).tolist())),
            }
    return figures


# ---- Fine-tuning --------------------------------------------------------------------------


SMALL = 96
#: What a step with images of SMALL pixels costs, as a part of one with images of SIDE.
SMALL_COST = 0.6


@dataclass
class Task:
    """One fine-tuning stage."""

    make: Callable[[nn.Module], nn.Module]  # the model around a ViT without a classifier
    loss: Callable[..., dict[str, Tensor]]
    figures: Callable[..., dict[str, Any]]
    small: int  # steps with images of SMALL pixels, which come first
    large: int  # steps with images of SIDE
    batch: int = 16
    rate: float = 1e-3
    metric: str = "miou"
    frozen: bool = False  # only the head is trained, and only on the pretrained ViT


def make_segmentation(head: str) -> Callable[[nn.Module], nn.Module]:
    """A segmentation model with the ViT's weights."""

    def make(vit: nn.Module) -> nn.Module:
        model = VisionTransformerForSegmentation(num_classes=len(LABELS), **VIT, head=head)
        model.load_state_dict(vit.state_dict(), strict=False)
        return model

    return make


def segmentation_loss(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """Cross-entropy of the pixels, and half of 1 - Dice of the classes over the batch, from
    every second pixel of every second row."""
    with bfloat16():
        logits = model(normalised(images))
    logits = logits.float()
    some, truth = logits[:, :, ::2, ::2], masks[:, ::2, ::2]
    seen = (truth != 255)[:, None]
    shares = some.softmax(1) * seen
    wanted = F.one_hot(truth.where(truth != 255, 0), len(LABELS)).permute(0, 3, 1, 2) * seen
    both = (shares * wanted).sum((0, 2, 3))
    dice = 2 * both / (shares.sum((0, 2, 3)) + wanted.sum((0, 2, 3))).clamp(min=1)
    there = wanted.sum((0, 2, 3)) > 0
    return {
        "pixels": F.cross_entropy(logits, masks, ignore_index=255),
        "dice": 0.5 * (1 - dice[there].mean()),
    }


def segmentation_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of a segmentation model, at the size that it sees."""
    return segmentation_figures(model, scenes.images[:count], scenes.masks)


def make_faster_rcnn(vit: nn.Module) -> nn.Module:
    """Faster R-CNN over two levels of the ViT's pyramid, of strides 4 and 8."""
    return vit_faster_rcnn(
        vit,
        num_classes=len(LABELS),
        out_channels=48,
        scales=(2, 1),
        anchor_sizes=(40, 60, 84),
        representation_size=128,
        min_size=SIDE,
        max_size=2 * SIDE,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        rpn_top_n=100,
        box_score_thresh=0.05,
        box_detections_per_img=20,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
    )


def faster_rcnn_loss(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """torchvision's four losses."""
    targets = [{"boxes": b, "labels": v} for b, v in zip(boxes, labels)]
    # The detector's own resizing is for images of any size; these have theirs.
    model.transform.min_size = (images.shape[2],)
    with bfloat16():
        losses = model(list(images), targets)
    model.transform.min_size = (SIDE,)
    return {name.removeprefix("loss_"): value.float() for name, value in losses.items()}


def faster_rcnn_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of Faster R-CNN."""

    def found(i: int) -> Found:
        answer = model([scenes.images[i].float() / 255])[0]
        return answer["boxes"], answer["scores"], answer["labels"]

    return detection_figures(coco("val"), found, scenes, count)


#: k-means with IoU over the boxes of the training scenes, at the size that the model sees.
YOLO_ANCHORS = [
    [(25.0, 56.0), (56.0, 32.0), (35.0, 65.0)],
    [(44.0, 55.0), (61.0, 50.0), (51.0, 68.0)],
    [(75.0, 43.0), (66.0, 81.0), (84.0, 64.0)],
]


def make_yolo(vit: nn.Module) -> nn.Module:
    """The YOLO-style head on three levels, of strides 4, 8 and 16."""
    model = VisionTransformerYOLO(vit, len(g.CLASSES), YOLO_ANCHORS, channels=64)
    for predict in model.predict:
        # Few of the predictions are of an object.
        predict.bias.data.view(-1, 5 + len(g.CLASSES))[:, 4] = -4.0
    return model


def yolo_losses(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """The three parts of the grid's loss, weighted."""
    with bfloat16():
        levels = model(normalised(images))
    total, parts = yolo_loss(
        levels, boxes, [v - 1 for v in labels], YOLO_ANCHORS, *images.shape[2:], **YOLO_WEIGHTS
    )
    # The log shows the parts; only the total has gradients.
    return {"total": total, **parts}


YOLO_WEIGHTS = {"box_weight": 1.0, "objectness_weight": 2.0, "class_weight": 3.0}


LETTERBOX = {
    "resize": {"rule": "letterbox", "size": [SIDE, SIDE]},
    "normalize": "torchvision",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def yolo_found(model: nn.Module, image: Path | Tensor, score: float = 0.05) -> Found:
    """The boxes of one image, after suppression within each class; a tensor is uint8."""
    if isinstance(image, Path):
        picture = preprocess.decode(image)
    else:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    ratio = min(SIDE / picture.height, SIDE / picture.width)
    width, height = round(picture.width * ratio), round(picture.height * ratio)
    left, top = round((SIDE - width) / 2 - 0.1), round((SIDE - height) / 2 - 0.1)
    levels = model(preprocess.to_tensor(picture, LETTERBOX)[None])
    y = decode([level.float() for level in levels], model.anchors, SIDE, SIDE)[0]
    scores, labels = (y[:, 4:5] * y[:, 5:]).max(1)
    kept = scores > score
    y, scores, labels = y[kept], scores[kept], labels[kept] + 1
    boxes = torch.cat([y[:, :2] - y[:, 2:4] / 2, y[:, :2] + y[:, 2:4] / 2], dim=1)
    best = batched_nms(boxes, scores, labels, 0.5)[:50]
    offset = torch.tensor([left, top, left, top])
    return (boxes[best] - offset) / ratio, scores[best], labels[best]


def yolo_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of the YOLO-style detector."""
    return detection_figures(
        coco("val"), lambda i: yolo_found(model, scenes.images[i]), scenes, count
    )


TASKS = {
    "segmentation": Task(
        make_segmentation("linear"), segmentation_loss, segmentation_check, small=2400, large=800
    ),
    "faster_rcnn": Task(
        make_faster_rcnn, faster_rcnn_loss, faster_rcnn_check, small=1600, large=800, metric="ap50"
    ),
    "deconvolution": Task(
        make_segmentation("transposed"),
        segmentation_loss,
        segmentation_check,
        small=1000,
        large=500,
    ),
    "yolo": Task(make_yolo, yolo_losses, yolo_check, small=1000, large=500, metric="ap50"),
    "head": Task(
        make_segmentation("linear"),
        segmentation_loss,
        segmentation_check,
        small=0,
        large=400,
        rate=3e-3,
        frozen=True,
    ),
}


def pretrained_vit() -> VisionTransformer:
    """The pretrained ViT with its classifier."""
    path = WORK / f"{list(PRETRAINING)[-1]}.pth"
    if not path.is_file():
        raise SystemExit("no pretrained ViT yet: --stage pretrain")
    vit = VisionTransformer(num_classes=len(g.CLASSES), **VIT)
    vit.load_state_dict(torch.load(path, weights_only=True))
    return vit


def start_model(task: Task, scratch: bool, seed: int) -> nn.Module:
    """The model before its fine-tuning; the head starts the same in both cases."""
    vit = new_vit(seed, 0)
    if not scratch:
        state = pretrained_vit().state_dict()
        vit.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    torch.manual_seed(seed + 1)
    return task.make(vit)


def fine_tune(name: str, scratch: bool, seed: int, train_set: Scenes, held_out: Scenes) -> Run:
    """The run of one fine-tuning stage."""
    task = TASKS[name]
    steps = task.small + task.large
    model = start_model(task, scratch, seed)
    vit = getattr(model, "vit", model.backbone.vit if hasattr(model, "backbone") else model)
    if task.frozen:
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_("segmentation_head" in parameter_name)

    def loss(step: int) -> dict[str, Tensor]:
        rng = seeds(seed, 2, step)
        picks = shuffled(len(train_set.images), task.batch, step, seed)
        side = SMALL if step < task.small else SIDE
        batch = scene_batch(train_set, picks, side, rng)
        largest = 0 if rng.random() < 0.7 else 24
        with training_embed(vit, windowed_embed(vit, rng, largest)):
            return task.loss(model, *batch)

    def cost(step: int) -> float:
        return SMALL_COST * min(step, task.small) + max(step - task.small, 0)

    def check(step: int) -> dict[str, float]:
        figures = task.figures(model, held_out, 100)
        return {task.metric: figures[task.metric]}

    return Run(
        name=f"{name}_scratch" if scratch else name,
        model=model,
        groups=parameter_groups(model, 1.0 if scratch else LAYER_DECAY),
        rate=task.rate,
        warmup=50,
        steps=steps,
        progress=lambda step: cost(step) / cost(steps),
        loss=loss,
        check=check,
        every=max(steps // 10, 1),
    )


# ---- Held-out figures of the finished models ----------------------------------------------


def finished_model(name: str, scratch: bool) -> nn.Module:
    """A fine-tuned model in evaluation mode."""
    run = f"{name}_scratch" if scratch else name
    torch.manual_seed(0)
    model = TASKS[name].make(VisionTransformer(num_classes=0, **VIT))
    model.load_state_dict(torch.load(WORK / f"{run}.pth", weights_only=True))
    return model.eval()


def classification_figures(vit: nn.Module, seed: int, pasted: int = 2000) -> dict[str, Any]:
    """Top-1 on all images of Fashion-MNIST's test split as they are, brought to SIDE, and of
    the first ones on held-out photos and textures, each garment at 0.5 to 1 of the image."""
    test, rng = garment_bank(False), np.random.default_rng(seed + 2)
    bank = background_banks(g.TEST_PHOTOS, seed + 1)[SIDE]
    count, plain, photos = len(test.labels), 0, 0
    classes = np.zeros(len(g.CLASSES))
    for start in range(0, count, 100):
        picks = np.arange(start, start + 100)
        truth = test.labels[picks]
        images = plain_images(test, slice(start, start + 100), SIDE)
        hits = vit(normalised(images)).argmax(1) == truth
        classes += np.bincount(truth[hits].numpy(), minlength=len(classes))
        plain += int(hits.sum())
        if start < pasted:
            images = draw(bank, len(picks), SIDE, rng)
            bare = np.zeros(len(picks), bool)
            images = single_garments(test, picks, images, bare, (0.5, 1.0), rng)
            photos += int((vit(normalised(images)).argmax(1) == truth).sum())
    per_class = classes / np.bincount(test.labels.numpy())
    return {
        "images": count,
        "top1": plain / count,
        "images_photos": min(pasted, count),
        "top1_photos": photos / min(pasted, count),
        "top1_by_class": dict(zip(g.CLASSES, per_class.tolist())),
    }


def attention_figures(vit: nn.Module, scenes: Scenes) -> dict[str, Any]:
    """How much of the class token's attention to the patches (last block, mean over heads)
    lies on garments, against the garments' share of the area: means over the scenes."""
    masses, areas, better = [], [], 0
    for image, mask in zip(scenes.images, scenes.masks):
        x = even(image)
        garment = F.interpolate((mask > 0)[None, None].float(), size=x.shape[2:], mode="nearest")
        covered = F.avg_pool2d(garment, VIT["patch_size"]).flatten()
        _, attention = vit.forward_with_attention(normalised(x))
        weights = attention[0, :, 0, 1:].mean(0)
        masses.append(float((weights * covered).sum() / weights.sum()))
        areas.append(float(covered.mean()))
        better += masses[-1] > areas[-1]
    return {
        "images": len(masses),
        "mass_on_garments": float(np.mean(masses)),
        "area_of_garments": float(np.mean(areas)),
        "ratio": float(np.mean(masses) / np.mean(areas)),
        "scenes_above_1": better / len(masses),
    }


def final_figures(name: str, model: nn.Module, scenes: Scenes) -> dict[str, Any]:
    """Figures of a fine-tuned model on every held-out scene, in the scene's own pixels and
    with the preprocessing of the exported file."""
    truth = coco("val")
    paths = [SCENES / "val" / truth.imgs[number]["file_name"] for number in scenes.ids]
    if TASKS[name].metric == "miou":

        def masks() -> Iterable[Tensor]:
            for number in scenes.ids:
                entry = truth.imgs[number]
                mask = torch.zeros(entry["height"], entry["width"], dtype=torch.uint8)
                for annotation in truth.loadAnns(truth.getAnnIds(number)):
                    shape = torch.from_numpy(truth.annToMask(annotation)) > 0
                    mask[shape] = annotation["category_id"]
                yield mask

        return segmentation_figures(model, scenes.images, masks())
    own = dataclasses.replace(scenes, scales=[torch.ones(2)] * len(scenes.ids))

    def found(i: int) -> Found:
        if name == "yolo":
            return yolo_found(model, paths[i])
        image = TF.to_tensor(preprocess.decode(paths[i]))
        answer = model([image])[0]
        return answer["boxes"], answer["scores"], answer["labels"]

    return detection_figures(truth, found, own)


def rounded(value: Any) -> Any:
    """Numbers with four digits after the point, all the way down."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def evaluate(seed: int) -> None:
    """Writes FIGURES from whatever is trained."""
    scenes = load_scenes("val")
    figures: dict[str, Any] = {}
    with torch.no_grad():
        vit = pretrained_vit().eval()
        figures["attention"] = attention_figures(vit, scenes)
        figures["classification"] = classification_figures(vit, seed)
        for name in TASKS:
            for start in ("pretrained", "scratch"):
                run = name + ("_scratch" if start == "scratch" else "")
                if (WORK / f"{run}.pth").is_file():
                    model = finished_model(name, start == "scratch")
                    answer = final_figures(name, model, scenes)
                    figures.setdefault(name, {})[start] = answer
                    print(run, json.dumps(rounded(answer)), flush=True)
    figures["training"] = {}
    for run in [*PRETRAINING, *(n + s for n in TASKS for s in ("", "_scratch"))]:
        log = read_log(run)
        if log:
            last = {"steps": log[-1]["step"], "seconds": log[-1]["seconds"], "seed": seed}
            figures["training"][run] = last
    text = json.dumps(rounded(figures), indent=1) + "\n"
    write_whole(FIGURES, lambda path: path.write_text(text))
    print(text)


# ---- Pictures and table -------------------------------------------------------------------

TITLES = {
    "segmentation": "Segmentation, 1x1 head",
    "deconvolution": "Segmentation, transposed convolution",
    "faster_rcnn": "Faster R-CNN",
    "yolo": "YOLO-style head",
    "head": "1x1 head alone, on the pretrained ViT as it is",
}


def draw_curves() -> None:
    """Writes PICTURES/*.png from the logs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    PICTURES.mkdir(parents=True, exist_ok=True)

    def save(figure: Any, name: str) -> None:
        figure.tight_layout()
        write_whole(
            PICTURES / f"{name}.png", lambda path: figure.savefig(path, dpi=110, format="png")
        )
        plt.close(figure)

    def panel(axes: Any, log: list[dict[str, Any]], key: str, label: str, colour: str) -> None:
        points = [(line["step"], line[key]) for line in log if key in line]
        axes.plot(*zip(*points), color=colour, label=label, linewidth=1.6)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)

    log: list[dict[str, Any]] = []
    for part in PRETRAINING:
        before = log[-1]["step"] if log else 0
        log += [line | {"step": line["step"] + before} for line in read_log(part)]
    if log:
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.7))
        panel(left, log, "classes", "cross-entropy", "C0")
        left.set_title("Pretraining: loss")
        panel(right, log, "top1", "plain images", "C0")
        panel(right, log, "top1_photos", "on held-out backgrounds", "C1")
        right.set_title("Top-1, 500 test garments")
        right.set_ylim(0, 1)
        right.legend(frameon=False)
        for axes in (left, right):
            ends = np.cumsum([phase.steps for phases in PRETRAINING.values() for phase in phases])
            for end in ends[:-1]:
                axes.axvline(end, color="0.7", linewidth=0.8, linestyle=":")
        save(figure, "pretrain")
    for name, title in TITLES.items():
        runs = [("from the pretrained ViT", read_log(name), "C0")]
        runs.append(("from scratch", read_log(f"{name}_scratch"), "C3"))
        runs = [run for run in runs if run[1]]
        if not runs:
            continue
        metric = TASKS[name].metric
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.7))
        for label, log, colour in runs:
            panel(left, log, "loss", label, colour)
            panel(right, log, metric, label, colour)
        left.set_title(f"{title}: loss")
        right.set_title(f"{'mIoU' if metric == 'miou' else 'AP50'}, 100 held-out scenes")
        right.set_ylim(0, 1)
        left.legend(frameon=False)
        save(figure, name)


def table(figures: dict[str, Any]) -> str:
    """The table of docs/training.md."""
    rows = ["| model | figure | from the pretrained ViT | from scratch |", "|---|---|---|---|"]
    c, a = figures["classification"], figures["attention"]
    rows.append(f"| classification | top-1, {c['images']} plain test images | {c['top1']:.3f} | |")
    rows.append(
        f"| | top-1, {c['images_photos']} of them on held-out backgrounds "
        f"| {c['top1_photos']:.3f} | |"
    )
    rows.append(
        f"| | attention on garments / their area | {a['mass_on_garments']:.3f} / "
        f"{a['area_of_garments']:.3f} = {a['ratio']:.2f} | |"
    )
    names = {
        "miou": "mIoU, 11 classes",
        "pixel_accuracy": "pixel accuracy",
        "garment_against_background_iou": "IoU, garment against background",
        "ap50": "AP50, 10 classes",
        "ap": "AP at IoU 0.50:0.95",
        "ap50_any_class": "AP50, any class",
    }
    for name, title in TITLES.items():
        both = figures.get(name, {})
        first = title
        for key, words in names.items():
            if not any(key in part for part in both.values()):
                continue
            cells = [
                f"{both[start][key]:.3f}" if key in both.get(start, {}) else ""
                for start in ("pretrained", "scratch")
            ]
            rows.append(f"| {first} | {words} | {cells[0]} | {cells[1]} |")
            first = ""
    return "\n".join(rows)


def training_table(figures: dict[str, Any]) -> str:
    """The table of steps and times."""
    rows = ["| run | steps | images a step | seconds |", "|---|---|---|---|"]
    for run, facts in figures["training"].items():
        if run in PRETRAINING:
            sizes = [phase.batch for phase in PRETRAINING[run]]
            batch = f"{min(sizes)} to {max(sizes)}"
        else:
            batch = str(TASKS[run.removesuffix("_scratch")].batch)
        rows.append(f"| {run} | {facts['steps']} | {batch} | {facts['seconds']:.0f} |")
    return "\n".join(rows)


def curves() -> None:
    """Draws the curves and puts the tables into docs/training.md, between their marks."""
    draw_curves()
    if not (DOCS.is_file() and FIGURES.is_file()):
        return
    figures = json.loads(FIGURES.read_text())
    text = DOCS.read_text()
    for mark, made in (("figures", table(figures)), ("times", training_table(figures))):
        before, found, rest = text.partition(f"<!-- {mark} -->\n")
        if found:
            text = before + found + made + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    write_whole(DOCS, lambda path: path.write_text(text))


# ---- Model files --------------------------------------------------------------------------


def training_facts(name: str) -> dict[str, Any]:
    """The "training" part of torchvit.json."""
    facts: dict[str, Any] = {"by": "scripts/train.py", "data": "Fashion-MNIST", "images": 60000}
    rate, metric = PRETRAIN_RATE, "top1"
    if name != "pretrain":
        task = TASKS[name]
        rate, metric = task.rate, task.metric
        facts |= {"from": "garments_vit.pt", "data": "scenes/train", "images": 6000}
        facts |= {"batch_size": task.batch, "layer_decay": LAYER_DECAY, "head": "all"}
        if task.frozen:
            facts |= {"freeze": "vit"}
    runs = PRETRAINING if name == "pretrain" else [name]
    steps = sum(read_log(run)[-1]["step"] for run in runs)
    facts |= {"steps": steps, "optimizer": "muon and adamw", "lr": rate}
    facts |= {"weight_decay": 0.05, "schedule": "cosine", "precision": "bfloat16"}
    figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    if name == "pretrain":
        value = figures.get("classification", {}).get(metric)
    else:
        value = figures.get(name, {}).get("pretrained", {}).get(metric)
        facts["validation"] = "scenes/val"
    return facts | ({"metric": metric, "value": value} if value is not None else {})


def export_models() -> None:
    """Writes the model files of whatever is trained and evaluated."""
    import reference_files as files

    torch.set_num_threads(1)
    size, mean = (SIDE, SIDE), [0.5, 0.5, 0.5]
    single = files.photo_bytes(256, sorted(TEST_SCENES.glob("single_*.jpg"))[0])
    # The squarest scene keeps the references small.
    pictures = {path: Image.open(path).size for path in sorted(TEST_SCENES.glob("scene_*.jpg"))}
    scene = files.photo_bytes(144, min(pictures, key=lambda p: max(pictures[p]) / min(pictures[p])))
    spec = files.preprocess_spec(
        size,
        mean,
        mean,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[SIDE],
        multiple_of=VIT["patch_size"],
    )
    MODELS.mkdir(exist_ok=True)
    files.write_vit(
        pretrained_vit().eval(),
        MODELS / "garments_vit.pt",
        "vision_transformer",
        "classification",
        size,
        True,
        spec,
        g.CLASSES,
        single,
        training=training_facts("pretrain"),
    )
    for name in TASKS:
        if not (WORK / f"{name}.pth").is_file():
            continue
        model, path = finished_model(name, False), MODELS / f"garments_{name}.pt"
        facts = training_facts(name)
        if name == "head":
            head = SegmentationHead(VIT["embed_dim"], len(LABELS), VIT["patch_size"], 1)
            head.load_state_dict(model.segmentation_head.state_dict())
            path = MODELS / "garments_segmentation_head.pt"
            files.write_head(head, path, size, LABELS, training=facts)
        elif name == "faster_rcnn":
            labels = ["__background__", *g.CLASSES]
            files.write_detector(model, path, "vit_faster_rcnn", labels, 0.5, scene, training=facts)
        elif name == "yolo":
            options = {"mean": mean, "std": mean, "training": facts}
            files.write_yolo(model, path, "yolo_grid", size, g.CLASSES, 0.3, **options)
        else:
            kind = "vision_transformer_for_segmentation"
            kind += "_transposed" if name == "deconvolution" else ""
            files.write_vit(
                model, path, kind, "segmentation", size, True, spec, LABELS, scene, training=facts
            )
    for path in sorted(MODELS.glob("*.pt")):
        print(f"{path.name}: {path.stat().st_size} bytes")
        if path.stat().st_size > 12_000_000:
            raise SystemExit(f"{path.name} is larger than 12,000,000 bytes")


# ---- A tiny run ---------------------------------------------------------------------------


def quick(seed: int) -> None:
    """Trains tiny runs, each at once and with a stop, and compares the weights."""
    global WORK
    kept = WORK
    phases = [Phase(32, 8, 6, 1.0, (0.8, 1.1), 1.0), Phase(64, 4, 6, 0.5, (0.6, 1.1), 1.0)]
    makers: dict[str, Callable[[], Run]] = {
        "pretrain": lambda: pretrain("pretrain", seed, phases, count=20, backgrounds=20)
    }
    if instances_path("train").is_file():
        sets = load_scenes("train", 24), load_scenes("val", 4)
        for name in TASKS:

            def make(name: str = name) -> Run:
                run = fine_tune(name, True, seed, *sets)
                return dataclasses.replace(run, steps=6, every=6)

            makers[name] = make
    for name, make in makers.items():
        weights = []
        for stop in (0, 5):
            with tempfile.TemporaryDirectory() as folder:
                WORK = Path(folder)
                if stop:
                    with contextlib.suppress(SystemExit):
                        train(make(), 10, stop_at=stop)
                train(make(), 10)
                done = next(WORK.glob("*.pth"))
                weights.append(torch.load(done, weights_only=True))
        WORK = kept
        same = all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
        print(f"{name}: stopped and gone on: {'the same weights' if same else 'OTHER WEIGHTS'}")
        if not same:
            raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = ["pretrain", *TASKS, "evaluate", "curves", "export"]
    parser.add_argument("--stage", action="append", choices=stages, help="may be repeated")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--from-scratch", action="store_true", help="fine-tune from scratch only")
    only.add_argument("--pretrained", action="store_true", help="from the pretrained ViT only")
    parser.add_argument("--quick", action="store_true", help="a tiny run that checks resuming")
    parser.add_argument("--again", action="store_true", help="train finished stages again")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument(
        "--minutes", type=float, default=40, help="limit of one start; it then stops (default 40)"
    )
    args = parser.parse_args()
    if sys.platform == "linux" and "MALLOC_TOP_PAD_" not in os.environ:
        # Freed tensors stay in the process: new pages for each cost a fifth of the time.
        gigabytes = str(4 << 30)
        keep = {"MALLOC_MMAP_THRESHOLD_": gigabytes, "MALLOC_TRIM_THRESHOLD_": gigabytes}
        keep |= {"MALLOC_TOP_PAD_": str(1 << 28), "OMP_NUM_THREADS": str(args.threads)}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    torch.set_num_threads(args.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    if args.quick:
        quick(args.seed)
        return
    chosen = args.stage or stages
    for name, phases in PRETRAINING.items():
        if "pretrain" in chosen and not finished(name, args.again):
            train(pretrain(name, args.seed, phases), args.minutes, args.again)
    sets: list[Scenes] = []
    for name in [name for name in TASKS if name in chosen]:
        for scratch in (False, True):
            run = f"{name}_scratch" if scratch else name
            unwanted = args.pretrained if scratch else args.from_scratch
            unwanted = unwanted or (scratch and TASKS[name].frozen)
            if unwanted or finished(run, args.again):
                continue
            sets = sets or [load_scenes("train"), load_scenes("val")]
            train(fine_tune(name, scratch, args.seed, *sets), args.minutes, args.again)
    if "evaluate" in chosen:
        evaluate(args.seed)
    if "curves" in chosen:
        curves()
    if "export" in chosen:
        export_models()


if __name__ == "__main__":
    main()
