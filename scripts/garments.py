"""Fashion-MNIST's garments and photos for their backgrounds, for pretraining and scenes.

The garments come from Debian's package dataset-fashion-mnist (MIT licence), the photos
from scikit-image (public domain and CC0; see fetch_photos.py).
"""

from __future__ import annotations

import gzip
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
