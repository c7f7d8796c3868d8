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

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import garments as g
from models.segmentation import VisionTransformerForSegmentation

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
    Phase(1300, 128, 32, 0, 0, 1.5e-3),
    Phase(450, 48, 64, 0, 0, 9e-4),
    Phase(330, 16, 64, 16, 96, 6e-4),
    Phase(60, 8, 64, 8, 144, 1.5e-4),
]
PIXELS = (26, 44)  # side of a garment's frame in pixels


def train_vit(photos: Path, minutes: float, seed: int) -> None:
    """Trains the ViT and saves its state dict."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = g.load_garments(train=True)
    bank = g.background_bank(g.load_photos(photos, g.TRAIN_PHOTOS), 2000, 176, rng)
    model = Trainee().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0, weight_decay=0.05, betas=(0.9, 0.98))
    weight = torch.ones(1 + len(g.CLASSES))
    weight[0] = 0.4
    start, done, accuracy = time.process_time(), 0, 0.0
    total = sum(phase.steps for phase in PHASES)
    for number, phase in enumerate(PHASES):
        following = PHASES[number + 1].peak if number + 1 < len(PHASES) else 0.0
        side = phase.single_size
        single_scale = (PIXELS[0] / side, min(0.97, 1.25 * PIXELS[1] / side))
        for step in range(phase.steps):
            rate = phase.peak + (following - phase.peak) * step / phase.steps
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (done + 1) / 100)
            backgrounds = g.draw_backgrounds(bank, phase.single, (side, side), rng)
            single = g.paste(backgrounds, data, rng, (1, 1), single_scale)
            target = torch.tensor([int(v[0]) - 1 if len(v) else -100 for v in single.labels])
            logits, pixels = model.both(single.images)
            class_loss = F.cross_entropy(logits, target)
            pixel_loss = F.cross_entropy(pixels, single.mask, weight)
            loss = pixel_loss + class_loss
            if phase.several:
                size = (phase.several_size, phase.several_size)
                scale = (PIXELS[0] / size[0], PIXELS[1] / size[0])
                backgrounds = g.draw_backgrounds(bank, phase.several, size, rng)
                several = g.paste(backgrounds, data, rng, (1, 5), scale)
                _, pixels = model.both(several.images)
                loss = loss + F.cross_entropy(pixels, several.mask, weight)
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
                    f"class {class_loss:.3f} top-1 {accuracy:.2f} "
                    f"{time.process_time() - start:.0f} s",
                    flush=True,
                )
                torch.save(model.state_dict(), WORK / "vit.part")
            if time.process_time() - start > minutes * 60:
                break
    seconds = round(time.process_time() - start)
    record("vit", {"steps": done, "of": total, "cpu_seconds": seconds, "seed": seed})
    torch.save(model.state_dict(), WORK / "vit.part")
    os.replace(WORK / "vit.part", WORK / "vit.pth")


def record(stage: str, facts: dict) -> None:
    """Keeps what a stage did, for the figures."""
    path = WORK / "log.json"
    log = json.loads(path.read_text()) if path.is_file() else {}
    log[stage] = facts
    path.write_text(json.dumps(log, indent=1))
