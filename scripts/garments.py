"""Scenes for training and demonstration: Fashion-MNIST garments pasted on photos.

The garments come from Debian's package dataset-fashion-mnist (MIT licence), the photos
from scikit-image (public domain and CC0; see fetch_photos.py). Masks and boxes follow
from the pasting, so every pixel has a true label.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

#: Photos that training draws its backgrounds from; the others are kept for testing.
TRAIN_PHOTOS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "clock_motion.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "text.png",
]
TEST_PHOTOS = ["chelsea.png", "coffee.png", "rocket.jpg"]

FASHION_MNIST = [
    Path("/usr/share/datasets/fashion-mnist"),
    Path("/usr/share/dataset/fashion-mnist"),
    Path("/usr/share/dataset-fashion-mnist"),
]


@dataclass
class Garments:
    """Garments as (n, 2, 28, 28) float32, grey and alpha in 0..1, and labels (n,)."""

    pixels: Tensor
    labels: Tensor


def read_idx(path: Path) -> np.ndarray:
    """Reads one gzipped IDX file of uint8."""
    data = gzip.decompress(path.read_bytes())
    dims = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def load_arrays(train: bool, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Loads Fashion-MNIST's training or test split: uint8 (n, 28, 28) and (n)."""
    candidates = [folder] if folder else FASHION_MNIST
    found = next((c for c in candidates if c.is_dir()), None)
    if found is None:
        raise SystemExit("Fashion-MNIST not found: apt-get install dataset-fashion-mnist")
    prefix = "train" if train else "t10k"
    images = read_idx(found / f"{prefix}-images-idx3-ubyte.gz")
    return images, read_idx(found / f"{prefix}-labels-idx1-ubyte.gz")


def load_garments(train: bool, folder: Path | None = None) -> Garments:
    """Loads Fashion-MNIST's training or test split."""
    pixels, classes = load_arrays(train, folder)
    images, labels = pixels.astype(np.float32), classes.astype(np.int64)
    grey = torch.from_numpy(images)[:, None]
    # The background is exactly 0; closing by one pixel fills the dark seams of a garment.
    solid = (grey > 8).float()
    solid = -F.max_pool2d(-F.max_pool2d(solid, 3, 1, 1), 3, 1, 1)
    grey = grey / grey.amax(dim=(2, 3), keepdim=True).clamp(min=1)
    return Garments(torch.cat([grey * solid, solid], dim=1), torch.from_numpy(labels))


def load_photos(folder: Path, names: list[str]) -> list[Image.Image]:
    """Loads photos as RGB."""
    return [Image.open(folder / name).convert("RGB") for name in names]


def random_crop(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Cuts a random rectangle of size's (height, width) proportions and resizes it."""
    height, width = size
    largest = min(photo.height / height, photo.width / width)
    scale = largest * rng.uniform(0.4, 1.0)
    w, h = width * scale, height * scale
    x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    crop = photo.resize((width, height), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def background_bank(
    photos: list[Image.Image], count: int, size: int, rng: np.random.Generator
) -> Tensor:
    """Returns count square crops as uint8 (count, 3, size, size)."""
    crops = [random_crop(photos[i % len(photos)], (size, size), rng) for i in range(count)]
    return (
        torch.from_numpy(np.stack([np.asarray(c) for c in crops])).permute(0, 3, 1, 2).contiguous()
    )


@dataclass
class Scenes:
    """A batch: images (B, 3, H, W) float 0..1, mask (B, H, W) int64 with 0 for the
    background and label + 1 for garments, and per image the boxes xyxy, labels
    (1..10) and pixels (H, W) bool of the garments, without what later ones cover."""

    images: Tensor
    mask: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    visible: list[list[Tensor]]


def place(
    count: int, height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    """Finds up to count squares (centre x, centre y, side) that hardly overlap."""
    placed: list[tuple[float, float, float]] = []
    short = min(height, width)
    for _ in range(count):
        for _ in range(12):
            side = rng.uniform(*scale) * short
            x = rng.uniform(side * 0.45, width - side * 0.45)
            y = rng.uniform(side * 0.45, height - side * 0.45)
            apart = all(max(abs(x - px), abs(y - py)) > 0.46 * (side + ps) for px, py, ps in placed)
            if apart:
                placed.append((x, y, side))
                break
    return placed


def paste(
    backgrounds: Tensor,
    garments: Garments,
    rng: np.random.Generator,
    count: tuple[int, int] = (1, 4),
    scale: tuple[float, float] = (0.28, 0.55),
) -> Scenes:
    """Pastes random garments on backgrounds (B, 3, H, W) float 0..1.

    count is the range of garments per image, both ends included; scale the range of
    their size relative to the shorter side.
    """
    batch, _, height, width = backgrounds.shape
    layouts = [
        place(int(rng.integers(count[0], count[1] + 1)), height, width, scale, rng)
        for _ in range(batch)
    ]
    images = backgrounds.clone()
    mask = torch.zeros(batch, height, width, dtype=torch.int64)
    boxes: list[list[list[float]]] = [[] for _ in range(batch)]
    labels: list[list[int]] = [[] for _ in range(batch)]
    visible: list[list[Tensor]] = [[] for _ in range(batch)]
    for slot in range(max(len(layout) for layout in layouts)):
        rows = [i for i, layout in enumerate(layouts) if len(layout) > slot]
        picks = torch.from_numpy(rng.integers(0, len(garments.labels), len(rows)))
        x, y, side = np.array([layouts[i][slot] for i in rows]).T
        angle = rng.normal(0, 8, len(rows)) * math.pi / 180
        flip = np.where(rng.random(len(rows)) < 0.5, -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        fx, fy = width / side, height / side
        cx, cy = 2 * x / width - 1, 2 * y / height - 1
        # Maps the scene's normalised coordinates to the garment's.
        matrix = [
            [flip * cos * fx, flip * sin * fy, -flip * (cos * fx * cx + sin * fy * cy)],
            [-sin * fx, cos * fy, sin * fx * cx - cos * fy * cy],
        ]
        theta = torch.from_numpy(np.array(matrix).transpose(2, 0, 1)).float()
        grid = F.affine_grid(theta, [len(rows), 2, height, width], align_corners=False)
        layer = F.grid_sample(garments.pixels[picks], grid, mode="bilinear", align_corners=False)
        grey, alpha = layer[:, :1], layer[:, 1:]
        grey = grey / alpha.clamp(min=1e-3)
        dark = torch.from_numpy(rng.uniform(0.05, 0.5, (len(rows), 1, 1, 1))).float()
        tint = torch.from_numpy(rng.uniform(0.25, 1.0, (len(rows), 3, 1, 1))).float()
        colour = (dark + (1 - dark) * grey) * tint
        images[rows] = images[rows] * (1 - alpha) + colour * alpha
        solid = alpha[:, 0] > 0.5
        for j, i in enumerate(rows):
            label = int(garments.labels[picks[j]]) + 1
            ys, xs = torch.where(solid[j].any(1))[0], torch.where(solid[j].any(0))[0]
            if len(ys) < 3 or len(xs) < 3:
                continue
            mask[i][solid[j]] = label
            visible[i] = [v & ~solid[j] for v in visible[i]] + [solid[j]]
            boxes[i].append([float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)])
            labels[i].append(label)
    return Scenes(
        images.clamp(0, 1),
        mask,
        [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in boxes],
        [torch.tensor(v, dtype=torch.int64) for v in labels],
        visible,
    )


def draw_backgrounds(
    bank: Tensor, batch: int, size: tuple[int, int], rng: np.random.Generator
) -> Tensor:
    """Takes random crops of the bank, with changed brightness, contrast and colour."""
    picks = torch.from_numpy(rng.integers(0, len(bank), batch))
    y = int(rng.integers(0, bank.shape[2] - size[0] + 1))
    x = int(rng.integers(0, bank.shape[3] - size[1] + 1))
    images = bank[picks, :, y : y + size[0], x : x + size[1]].float() / 255
    gain = torch.from_numpy(rng.uniform(0.6, 1.3, (batch, 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.15, 0.15, (batch, 1, 1, 1))).float()
    images = images * gain + shift
    if rng.random() < 0.5:
        images = images.flip(3)
    return images.clamp(0, 1)
