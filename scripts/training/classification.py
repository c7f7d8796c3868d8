"""Pretraining: the ViT names the garment of an image, and for each patch how much of it is
garment, and which (token labelling: Jiang et al., All Tokens Matter, 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import garments as g
from fetch_photos import fetch
from models.vision_transformer import VisionTransformer
from training.runs import (
    SIDE,
    VIT,
    Run,
    layer_precision,
    new_vit,
    normalised,
    parameter_groups,
    seeds,
    training_embed,
    windowed_embed,
)

PRETRAIN_RATE = 2.5e-3


@dataclass
class Phase:
    """A part of pretraining."""

    size: int
    batch: int
    steps: int
    scale: tuple[float, float]  # of a garment on a background, relative to the image
    seconds: float  # of a step, measured, for the schedule of the rate


#: Small images first; the garments are 5 to 16 patches a side in the end.
PRETRAINING = [
    Phase(48, 64, 2600, (0.7, 1.1), 0.37),
    Phase(64, 64, 1600, (0.6, 1.1), 0.57),
    Phase(96, 32, 700, (0.5, 1.1), 0.65),
    Phase(128, 16, 300, (0.4, 1.05), 0.60),
]


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
) -> tuple[Tensor, Tensor]:
    """One garment an image, (B, 3, H, W) 0..1: plain ones on black, as Fashion-MNIST has
    them but a little moved, the others turned, tinted, lit and with a shadow on their
    background. With them how much of each pixel is garment, (B, 1, H, W) 0..1."""
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
    shade = dark + (1 - dark) * grey / alpha.clamp(min=1e-3)
    # Light from a side, the cloth's grain, and what the garment keeps the light from.
    light = torch.from_numpy(rng.uniform(0.8, 1.2, (batch, 1, 2, 2))).float()
    shade = shade * F.interpolate(light, size=(height, width), mode="bilinear")
    shade = shade * (1 + 0.045 * torch.randn(batch, 1, height, width))
    reach = max(1, height // 32)
    shadow = F.avg_pool2d(alpha.roll((reach, reach), (2, 3)), 2 * reach + 1, 1, reach)
    strength = torch.from_numpy(rng.uniform(0.0, 0.6, (batch, 1, 1, 1))).float()
    pasted = backgrounds * (1 - strength * shadow) * (1 - alpha) + shade * tint * alpha
    return torch.where(bare, grey * gain, pasted).clamp(0, 1), alpha


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
    with layer_precision():
        for some, truth in zip(images.split(128), labels.split(128)):
            right += int((vit(normalised(some)).argmax(1) == truth).sum())
    return right / len(labels)


def pretrain(
    seed: int, phases: list[Phase] = PRETRAINING, count: int = 500, backgrounds: int = 2400
) -> Run:
    """The run of pretraining; count garments of the test split are looked at meanwhile."""
    banks = background_banks(g.TRAIN_PHOTOS, seed, backgrounds)
    held_out = background_banks(g.TEST_PHOTOS, seed + 1, backgrounds)
    data, test = garment_bank(True), garment_bank(False)
    vit = new_vit(seed, len(g.CLASSES))
    vit.patch_head = torch.nn.Linear(vit.embed_dim, 1 + len(g.CLASSES))
    ends = np.cumsum([phase.steps for phase in phases])
    costs = np.concatenate([np.full(p.steps, p.seconds) for p in phases])
    progress = np.concatenate([[0.0], np.cumsum(costs) / costs.sum()])

    def loss(step: int) -> dict[str, Tensor]:
        phase = phases[int(np.searchsorted(ends, step, side="right"))]
        rng = seeds(seed, 1, step)
        picks = rng.integers(0, len(data.labels), phase.batch)
        backgrounds = draw(banks[phase.size], phase.batch, phase.size, rng)
        plain = rng.random(phase.batch) < 0.5
        images, alpha = single_garments(data, picks, backgrounds, plain, phase.scale, rng)
        largest = 0 if rng.random() < 0.85 else 20
        with training_embed(vit, windowed_embed(vit, rng, largest)), layer_precision():
            tokens = vit.tokens(normalised(images))
            logits, patches = vit.head(tokens[:, 0]), vit.patch_head(tokens[:, 1:])
        target = data.labels[picks]
        share = F.avg_pool2d(alpha, VIT["patch_size"]).flatten(2).transpose(1, 2)
        one_hot = F.one_hot(target, len(g.CLASSES))[:, None]
        wanted = torch.cat([1 - share, share * one_hot], dim=2)
        return {
            "classes": F.cross_entropy(logits.float(), target, label_smoothing=0.05),
            "patches": -(wanted * patches.float().log_softmax(2)).sum(2).mean(),
        }

    def check(step: int) -> dict[str, float]:
        phase = phases[min(int(np.searchsorted(ends, step)), len(phases) - 1)]
        size, rng = phase.size, np.random.default_rng(seed + 2)
        truth = test.labels[:count]
        picks = np.arange(count)
        backgrounds = draw(held_out[size], count, size, rng)
        scale = (0.6, 1.0) if size > 32 else (0.85, 1.0)
        bare = np.zeros(count, bool)
        pasted, _ = single_garments(test, picks, backgrounds, bare, scale, rng)
        plain = plain_images(test, slice(0, count), size)
        return {"top1": top1(vit, plain, truth), "top1_photos": top1(vit, pasted, truth)}

    return Run(
        name="pretrain",
        model=vit,
        groups=parameter_groups(vit),
        rate=PRETRAIN_RATE,
        warmup=50,
        steps=int(ends[-1]),
        progress=lambda step: float(progress[step]),
        loss=loss,
        check=check,
        every=500,
        seed=seed,
    )


def classification_figures(vit: VisionTransformer, seed: int, pasted: int = 2000) -> dict[str, Any]:
    """Top-1 on all images of Fashion-MNIST's test split as they are, brought to SIDE, and of
    the first ones on held-out photos and textures, each garment at 0.5 to 1 of the image."""
    test, rng = garment_bank(False), seeds(seed, 2)
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
            images, _ = single_garments(test, picks, images, bare, (0.5, 1.0), rng)
            photos += int((vit(normalised(images)).argmax(1) == truth).sum())
    per_class = classes / np.bincount(test.labels.numpy())
    return {
        "images": count,
        "top1": plain / count,
        "images_photos": min(pasted, count),
        "top1_photos": photos / min(pasted, count),
        "top1_by_class": dict(zip(g.CLASSES, per_class.tolist())),
    }
