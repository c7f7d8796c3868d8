"""Trains the demonstration models on Fashion-MNIST garments pasted on photos.

    .venv/bin/python scripts/train_garments.py                # everything, about 25 minutes
    .venv/bin/python scripts/train_garments.py --stage export # only write the files again

Stages:
  vit       one small ViT, trained at once to name the garment of an image (head on the
            class token) and to label its pixels (1x1 convolution on the patch tokens);
            at most 15 minutes on two cores.
  detector  torchvision's Faster R-CNN over a simple pyramid of that ViT; about 8 minutes.
  scenes    six held-out scenes (photos and garments that training never saw).
  evaluate  held-out figures, written to testdata/models/figures.json.
  export    testdata/models/*.pt, self-described model files with references.

Checkpoints stay in testdata/generated/garments. The backgrounds of training and testing
are different photos; garments come from the training and the test split.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import garments as g
from fetch_photos import fetch
from models.segmentation import VisionTransformerForSegmentation
from models.vision_transformer import VisionTransformer

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "testdata" / "generated" / "garments"
VIT = {"img_size": 144, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
MEAN = STD = (0.5, 0.5, 0.5)


class Trainee(VisionTransformerForSegmentation):
    """Both heads on one ViT, for training only."""

    def __init__(self) -> None:
        super().__init__(num_classes=1 + len(g.CLASSES), **VIT)
        self.head = nn.Linear(self.embed_dim, len(g.CLASSES))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class logits (B, 10) and pixel logits (B, 11, H, W)."""
        tokens = self.tokens((x - 0.5) / 0.5)
        return self.head(tokens[:, 0]), self.segment(tokens, x.shape[2], x.shape[3])


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine to nothing."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train_vit(photos: Path, steps: int, minutes: float, seed: int) -> None:
    """Trains the ViT and saves its state dict."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=True)
    bank = g.background_bank(g.load_photos(photos, g.TRAIN_PHOTOS), 2000, 176, rng)
    model = Trainee().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0, weight_decay=0.05, betas=(0.9, 0.98))
    class_weight = torch.ones(1 + len(g.CLASSES))
    class_weight[0] = 0.4
    late = int(steps * 0.92)  # the last steps see larger images, as at inference
    start, done = time.process_time(), 0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1e-3, 80)
        size = (96, 96) if step < late else (144, 144)
        half = 16
        single = g.paste(g.draw_backgrounds(bank, half, size, rng), data, rng, (1, 1), (0.45, 0.9))
        scale = (0.3, 0.6) if step < late else (0.22, 0.45)
        several = g.paste(g.draw_backgrounds(bank, half, size, rng), data, rng, (1, 4), scale)
        images = torch.cat([single.images, several.images])
        mask = torch.cat([single.mask, several.mask])
        target = torch.tensor([int(v[0]) - 1 if len(v) else -100 for v in single.labels])
        logits, pixels = model.both(images)
        class_loss = F.cross_entropy(logits[:half], target)
        pixel_loss = F.cross_entropy(pixels, mask, class_weight)
        loss = pixel_loss + 0.5 * class_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if step % 50 == 0 or done == steps:
            right = (logits[:half].argmax(1) == target).float().mean()
            print(
                f"vit {step:5d}/{steps} pixel {pixel_loss:.3f} class {class_loss:.3f} "
                f"top-1 {right:.2f} {time.process_time() - start:.0f} s",
                flush=True,
            )
            torch.save(model.state_dict(), WORK / "vit.part")
        if time.process_time() - start > minutes * 60:
            print(f"vit: stopped after {minutes} processor minutes at step {done}")
            break
    record("vit", {"steps": done, "cpu_seconds": round(time.process_time() - start), "seed": seed})
    torch.save(model.state_dict(), WORK / "vit.part")
    os.replace(WORK / "vit.part", WORK / "vit.pth")


def record(stage: str, facts: dict) -> None:
    """Keeps what a stage did, for the figures."""
    path = WORK / "log.json"
    log = json.loads(path.read_text()) if path.is_file() else {}
    log[stage] = facts
    path.write_text(json.dumps(log, indent=1))
