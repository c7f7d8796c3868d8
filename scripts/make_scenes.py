"""Makes COCO data sets of scenes: real garments on photographic and textured backgrounds.

    .venv/bin/python scripts/make_scenes.py             # 6000 + 500 scenes, a few minutes
    .venv/bin/python scripts/make_scenes.py --count 400 --val 40 --out /tmp/scenes
    .venv/bin/python scripts/make_scenes.py --testdata  # the part in git, testdata/scenes*

The garments come from Fashion-MNIST (MIT licence, Debian's dataset-fashion-mnist), the
photos are public domain or CC0 (fetch_photos.py). A scene has one to four garments at
varied size, angle, colour and light, which cover one another a little; masks and boxes are
exact: they are the pixels that the pasting changed and that later garments left to be seen.

Nothing is shared between the splits: train takes its garments from Fashion-MNIST's training
split, val from the first half of its test split and testdata/scenes from the second half;
each split has its own photos and its own kinds of texture, and no garment is used twice.
Every image's entry records its background and garments, so this can be checked
(check_scenes.py). A scene follows from (seed, split, number) alone: the same arguments give
the same files, whatever the number of workers. A folder that is up to date is left alone.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import io
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from PIL import Image
from pycocotools import mask as rle

import garments as fashion
from fetch_photos import fetch_all

Array = np.ndarray
Texture = Callable[[int, int, np.random.Generator], Array]

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "testdata" / "generated" / "scenes"
TESTDATA = ROOT / "testdata" / "scenes"

#: (height, width) and how often; the shortest edge becomes 128 without a remainder.
SIZES = {
    (256, 256): 0.76,
    (256, 320): 0.06,
    (320, 256): 0.06,
    (256, 384): 0.03,
    (384, 256): 0.03,
    (192, 192): 0.03,
    (320, 320): 0.03,
}
#: The part in git: how many scenes of several garments, and sizes.
TEST_SCENES = 24
TEST_SIZES = [(256, 320), (256, 256), (288, 288), (320, 256), (256, 384), (192, 240), (288, 192)]
#: And how many to train on, in testdata/scenes_train: train's first, half as large.
SMALL_SCENES = 200
SINGLE_SIZES = [(224, 224), (240, 192), (256, 256), (192, 288)]
#: Range of a garment's frame, relative to the short side, by how many a scene wants.
FRAMES = {1: (0.5, 0.8), 2: (0.44, 0.68), 3: (0.4, 0.58), 4: (0.4, 0.52)}
#: The share of a garment that other garments and the picture's edge leave to be seen.
VISIBLE = 0.6
INSIDE = 0.88
#: Margin around Fashion-MNIST's 28 pixels, and how finely a cut-out is drawn.
MARGIN = 4
FINE = 4
TOPS, SHOES, SANDAL, BAG = (0, 2, 3, 4, 6), (7, 9), 5, 8


@dataclass
class Split:
    """Where one split's scenes take what they show."""

    name: str
    number: int  # goes into the seed
    train: bool  # Fashion-MNIST's training split, or its test split
    part: tuple[float, float]  # the share of that split's garments, from and to
    photos: list[str]
    textures: list[str]


SPLITS = {
    "train": Split(
        "train",
        0,
        True,
        (0.0, 1.0),
        [
            "astronaut.png",
            "brick.png",
            "camera.png",
            "clock_motion.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "raccoon.png",
            "retina.jpg",
            "text.png",
            "acanthus-mollis.jpg",
            "airplane-from-above.jpg",
            "black-canyon.jpg",
            "dust-bowl-home.jpg",
            "march-pastoral.jpg",
        ],
        ["clouds", "stripes", "plaid", "dots", "wood", "cells", "gradient"],
    ),
    "val": Split(
        "val",
        1,
        False,
        (0.0, 0.5),
        ["allium-oreophilum.jpg", "french-alpine-landscape.jpg", "nagasaki-boats.jpg"],
        ["marble", "weave"],
    ),
    "test": Split(
        "test",
        2,
        False,
        (0.5, 1.0),
        ["chelsea.png", "coffee.png", "rocket.jpg"],
        ["ripples", "tiles"],
    ),
}


# Backgrounds: float32 (height, width, 3), about 0..1.


def colour(rng: np.random.Generator, value: tuple[float, float], most: float) -> Array:
    """A random colour of that range of HSV's value and at most that saturation."""
    hsv = rng.random(), rng.uniform(0, most), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def two_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """A dark and a bright colour, in random order."""
    pair = colour(rng, (0.12, 0.5), 0.7), colour(rng, (0.55, 0.95), 0.55)
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def mix(share: Array, rng: np.random.Generator) -> Array:
    """Turns a map of 0..1 into one between two random colours."""
    first, second = two_colours(rng)
    return first + (second - first) * share[..., None]


def noise(h: int, w: int, rng: np.random.Generator, cell: float, octaves: int = 4) -> Array:
    """Fractal value noise, about 0..1; cell is the size of the coarsest spots in pixels."""
    total = np.zeros((h, w), np.float32)
    weight = 1.0
    for _ in range(octaves):
        grid = rng.random((max(2, round(h / cell) + 1), max(2, round(w / cell) + 1)))
        total += weight * cv2.resize(grid.astype(np.float32), (w, h), None, 0, 0, cv2.INTER_CUBIC)
        weight, cell = weight / 2, max(cell / 2, 2)
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


def turned(h: int, w: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Pixel coordinates in a frame turned by a random angle."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    a = rng.uniform(0, 2 * math.pi)
    return x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)


def smoothstep(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def clouds(h: int, w: int, rng: np.random.Generator) -> Array:
    return mix(noise(h, w, rng, rng.uniform(30, 140), 5), rng)


def gradient(h: int, w: int, rng: np.random.Generator) -> Array:
    x, _ = turned(h, w, rng)
    return mix((x - x.min()) / (x.max() - x.min()), rng)


def stripes(h: int, w: int, rng: np.random.Generator) -> Array:
    x, _ = turned(h, w, rng)
    x = x + rng.uniform(0, 8) * noise(h, w, rng, 60, 2)
    wave = np.sin(x * 2 * math.pi / rng.uniform(10, 60))
    return mix(smoothstep(-0.3, 0.3, wave), rng)


def plaid(h: int, w: int, rng: np.random.Generator) -> Array:
    x, y = turned(h, w, rng)
    period = 2 * math.pi / rng.uniform(20, 60)
    bands = smoothstep(-0.2, 0.2, np.sin(x * period)) + smoothstep(-0.2, 0.2, np.sin(y * period))
    return mix(bands / 2, rng)


def dots(h: int, w: int, rng: np.random.Generator) -> Array:
    x, y = turned(h, w, rng)
    period = rng.uniform(16, 48)
    u, v = x % period - period / 2, y % period - period / 2
    radius = period * rng.uniform(0.18, 0.38)
    return mix(1 - smoothstep(radius - 1, radius + 1, np.sqrt(u * u + v * v)), rng)


def wood(h: int, w: int, rng: np.random.Generator) -> Array:
    x, y = turned(h, w, rng)
    x = x / rng.uniform(5, 12) + 5 * noise(h, w, rng, 160, 2)
    grain = 0.5 + 0.5 * np.sin(x + 0.01 * y)
    return mix(0.7 * grain + 0.3 * noise(h, w, rng, 6, 2), rng)


def cells(h: int, w: int, rng: np.random.Generator) -> Array:
    seeds = np.ones((h, w), np.uint8)
    count = int(rng.integers(20, 120))
    seeds[rng.integers(0, h, count), rng.integers(0, w, count)] = 0
    kind = cv2.DIST_LABEL_PIXEL
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=kind)
    first, second = two_colours(rng)
    shares = rng.random((int(labels.max()) + 1, 1)).astype(np.float32)
    flat = (first + (second - first) * shares)[labels]
    return flat * (1 - 0.4 * distance / distance.max())[..., None]


def marble(h: int, w: int, rng: np.random.Generator) -> Array:
    x, _ = turned(h, w, rng)
    warp = noise(h, w, rng, 90, 5) * rng.uniform(4, 9)
    return mix(np.abs(np.sin(x / rng.uniform(25, 60) + warp)), rng)


def weave(h: int, w: int, rng: np.random.Generator) -> Array:
    x, y = turned(h, w, rng)
    period = rng.uniform(8, 20)
    over = (np.floor(x / period) + np.floor(y / period)) % 2
    across, along = np.sin(x / period * math.pi) ** 2, np.sin(y / period * math.pi) ** 2
    return mix(np.where(over > 0, 0.35 + 0.65 * across, 0.6 * along), rng)


def ripples(h: int, w: int, rng: np.random.Generator) -> Array:
    y, x = np.mgrid[:h, :w].astype(np.float32)
    total = np.zeros((h, w), np.float32)
    for _ in range(2):
        cy, cx = rng.uniform(-0.3, 1.3) * h, rng.uniform(-0.3, 1.3) * w
        total += np.sin(np.hypot(y - cy, x - cx) / rng.uniform(4, 10))
    return mix(0.5 + 0.25 * total, rng)


def tiles(h: int, w: int, rng: np.random.Generator) -> Array:
    x, y = turned(h, w, rng)
    side = rng.uniform(32, 72)
    u, v = np.floor(x / side).astype(int), np.floor(y / side).astype(int)
    shade = rng.random((64, 64)).astype(np.float32)[u % 64, v % 64]
    edge = np.minimum(np.minimum(x % side, side - x % side), np.minimum(y % side, side - y % side))
    first, second = two_colours(rng)
    tile = first * (0.8 + 0.35 * shade + 0.1 * noise(h, w, rng, 12, 3))[..., None]
    return second + (tile - second) * smoothstep(1, 3, edge)[..., None]


TEXTURES: dict[str, Texture] = {
    f.__name__: f
    for f in (clouds, gradient, stripes, plaid, dots, wood, cells, marble, weave, ripples, tiles)
}


def photo_crop(photo: Image.Image, h: int, w: int, rng: np.random.Generator) -> Array:
    """A random part of a photo; a grey photo is mostly shown in two colours."""
    largest = min(photo.height / h, photo.width / w)
    scale = largest * rng.uniform(min(1.0, max(0.4, 0.7 / largest)), 1.0)
    x, y = rng.uniform(0, photo.width - w * scale), rng.uniform(0, photo.height - h * scale)
    box = (x, y, x + w * scale, y + h * scale)
    picture = photo.resize((w, h), Image.Resampling.BICUBIC, box)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(picture, np.float32) / 255
    if photo.mode == "L":
        if rng.random() < 0.7:
            dark, bright = colour(rng, (0.0, 0.3), 0.9), colour(rng, (0.7, 1.0), 0.5)
        else:
            dark, bright = np.zeros(3, np.float32), np.ones(3, np.float32)
        pixels = dark + (bright - dark) * pixels[..., None]
    return pixels


def draw_background(
    split: Split, photos: dict[str, Image.Image], h: int, w: int, rng: np.random.Generator
) -> tuple[str, Array]:
    """Returns what the background is and its pixels."""
    if rng.random() < 0.62:
        name = split.photos[int(rng.integers(len(split.photos)))]
        kind, pixels = f"photo:{name}", photo_crop(photos[name], h, w, rng)
    else:
        name = split.textures[int(rng.integers(len(split.textures)))]
        kind, pixels = f"texture:{name}", TEXTURES[name](h, w, rng)
    if rng.random() < 0.5:  # out of focus, as behind a subject
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 2.2))
    gain = rng.uniform(0.65, 1.15) * rng.uniform(0.9, 1.1, 3)
    pixels = pixels * gain.astype(np.float32) + np.float32(rng.uniform(-0.04, 0.08))
    return kind, np.clip(pixels, 0, 1).astype(np.float32)


# Garments.


def fill_holes(solid: Array, keep: Callable[[Array], bool] | None = None) -> Array:
    """Fills what the garment encloses, but for the holes that keep says yes to."""
    count, labels = cv2.connectedComponents((1 - solid).astype(np.uint8), connectivity=4)
    filled = solid.copy()
    for k in range(1, count):
        hole = labels == k
        if hole[0, 0] or hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any():
            continue
        if keep is None or not keep(hole):
            filled[hole] = 1
    return filled


def silhouette(grey: Array, label: int) -> Array:
    """The garment's pixels as 0 or 1; grey is uint8 with a margin.

    A white part of a garment is as black as the background in Fashion-MNIST, so what the
    outline encloses belongs to the garment, but for a bag's handle, between straps, and
    between the sleeves and the body.
    """

    def keep(hole: Array) -> bool:
        if hole.sum() < 4 or grey[hole].max() > 12:
            return False
        rows, columns = np.where(solid.any(1))[0], np.where(solid.any(0))[0]
        y, x = np.where(hole)
        if label == BAG:
            return bool(y.max() < rows[0] + 0.55 * (rows[-1] - rows[0]))
        off = abs(x.mean() - (columns[0] + columns[-1]) / 2) / (columns[-1] - columns[0])
        sleeve = label in TOPS and off > 0.2 and np.ptp(y) >= 2 * np.ptp(x) + 2
        return label == SANDAL or bool(sleeve)

    solid = (grey > 6).astype(np.uint8)
    if label in SHOES:  # a white sole
        solid = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones((5, 1), np.uint8))
    filled = fill_holes(solid, keep)
    # An outline with a gap encloses nothing until the gap is closed.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    closed = fill_holes(cv2.morphologyEx(solid, cv2.MORPH_CLOSE, cross), keep)
    if closed.sum() > 1.25 * filled.sum():
        filled = closed
    count, labels, stats, _ = cv2.connectedComponentsWithStats(filled, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    for k in range(1, count):
        if areas[k] < 0.08 * areas[1:].max():
            filled[labels == k] = 0
    return filled


def cut_out(picture: Array, label: int) -> Array:
    """A garment of 28x28 as float32 (side, side, 3), FINE times as fine and with a margin:
    how much is covered (the outline is at 0.5), grey 0..1, and depth (0.5 at the outline)."""
    grey = np.pad(picture, MARGIN)
    solid = silhouette(grey, label)
    value = grey.astype(np.float32)
    # At the outline Fashion-MNIST's grey also says how much of the pixel is covered.
    near = cv2.dilate(value, np.ones((3, 3), np.uint8))
    border = (solid == 1) & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    cover = solid.astype(np.float32)
    cover[border] = np.clip(value[border] / (0.8 * near[border]), 0.35, 1)
    # The grey of covered pixels goes on outwards, so that the rim is not dark.
    known = ((solid == 1) & (cover > 0.95)).astype(np.float32)
    value *= known
    for _ in range(MARGIN):
        weight = cv2.blur(known, (3, 3))
        spread = cv2.blur(value * known, (3, 3)) / np.maximum(weight, 1e-6)
        new = (known == 0) & (weight > 1e-3)
        value[new], known[new] = spread[new], 1
    inside = value[solid == 1]
    value = value / max(float(np.percentile(inside, 98)), 50.0)
    middle = float(np.median(np.clip(value[solid == 1], 0, 1)))
    value = np.clip(middle + 1.2 * (value - middle), 0, 1.1)
    depth = cv2.GaussianBlur(cover, (0, 0), 1.4)
    side = FINE * grey.shape[0]
    layers = cv2.resize(np.dstack([cover, value, depth]), (side, side), None, 0, 0, cv2.INTER_CUBIC)
    layers[..., 0] = cv2.GaussianBlur(layers[..., 0], (0, 0), 0.5 * FINE)
    return layers


@dataclass
class Look:
    """How one garment is drawn."""

    side: float  # of Fashion-MNIST's frame, in pixels of the scene
    angle: float  # degrees
    flip: bool
    tint: Array
    dark: float  # brightness of the darkest grey
    bright: float


def random_look(side: float, rng: np.random.Generator) -> Look:
    """Draws a plausible cloth colour and brightness; the grey's structure stays visible."""
    if rng.random() < 0.22:
        saturation, value = rng.uniform(0, 0.12), rng.uniform(0.5, 1.0)
    else:
        saturation, value = rng.uniform(0.15, 0.7), rng.uniform(0.6, 1.0)
    # Cloth is red, brown or blue more often than green or magenta.
    hue = rng.normal(0.04, 0.07) if rng.random() < 0.35 else rng.normal(0.6, 0.07)
    hue = rng.random() if rng.random() < 0.5 else hue % 1
    tint = np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
    angle = float(np.clip(rng.normal(0, 9), -20, 20))
    flip = bool(rng.random() < 0.5)
    return Look(side, angle, flip, tint, rng.uniform(0.1, 0.3), rng.uniform(0.85, 1.1))


@dataclass
class Patch:
    """A drawn garment: colour (h, w, 3), alpha (h, w), and the pixels that are its own."""

    colour: Array
    alpha: Array
    solid: Array


def draw_garment(layers: Array, look: Look, light: float, rng: np.random.Generator) -> Patch:
    """Turns, scales and paints a cut-out; light is the direction that light comes from."""
    size = int(math.ceil(look.side * 1.5)) | 1
    scale = look.side / (28 * FINE)
    a = math.radians(look.angle)
    sx = -1.0 if look.flip else 1.0
    source = (layers.shape[0] - 1) / 2
    matrix = np.array([[sx * math.cos(a), -math.sin(a)], [sx * math.sin(a), math.cos(a)]]) * scale
    shift = (size - 1) / 2 - matrix @ np.array([source, source])
    # warpAffine wants the map from the cut-out to the patch.
    warp = np.hstack([matrix, shift[:, None]])
    out = cv2.warpAffine(layers, warp, (size, size), flags=cv2.INTER_LINEAR)
    cover, value, depth = out[..., 0], out[..., 1], out[..., 2]
    alpha = np.clip(0.5 + (cover - 0.5) * max(1.0, 0.75 * look.side / 28), 0, 1)
    shade = look.dark + (look.bright - look.dark) * np.clip(value, 0, 1.1)
    shade *= 0.76 + 0.24 * smoothstep(0.45, 0.95, depth)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    shade *= 1 + 0.2 * (math.cos(light) * x + math.sin(light) * y)
    grain = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), 0.7)
    shade *= 1 + 0.045 * grain
    # The brightest parts lose colour, as cloth in the light does.
    white = 0.25 * np.clip(shade - 0.75, 0, 0.5)[..., None]
    paint = np.clip(shade[..., None] * look.tint * (1 - white) + white, 0, 1)
    return Patch(paint.astype(np.float32), alpha.astype(np.float32), alpha > 0.5)


def overlap(size: tuple[int, int], patch: Array, y: int, x: int) -> tuple[Any, Any]:
    """The slices of the scene and of the patch where a patch at (y, x) lies in the scene."""
    y1, x1 = min(y + patch.shape[0], size[0]), min(x + patch.shape[1], size[1])
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = max(y0, y1), max(x0, x1)
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


@dataclass
class Scene:
    """image uint8 (h, w, 3), and of each garment its label, index, how many pixels it has
    when nothing covers it, and the pixels (h, w) that are seen."""

    image: Array
    background: str
    labels: list[int] = field(default_factory=list)
    garments: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    visible: list[Array] = field(default_factory=list)


class Maker:
    """Makes the scenes of one split."""

    def __init__(
        self,
        split: Split,
        seed: int,
        images: Array,
        labels: Array,
        photos: dict[str, Image.Image],
    ) -> None:
        """images (n, 28, 28) and labels (n) uint8: Fashion-MNIST's split, whole."""
        self.split, self.seed, self.photos = split, seed, photos
        self.images, self.labels = images, labels
        start, stop = (round(share * len(labels)) for share in split.part)
        rng = np.random.default_rng([seed, split.number, 1])
        own = labels[start:stop]
        self.queues = [start + rng.permutation(np.where(own == c)[0]) for c in range(10)]

    def garment(self, position: int) -> int:
        """The garment at a position of the split's endless list: ten classes in random
        order, then again, so that the classes are balanced and no garment comes twice
        before all of its class have been used."""
        block, k = divmod(position, 10)
        rng = np.random.default_rng([self.seed, self.split.number, 2, block])
        queue = self.queues[int(rng.permutation(10)[k])]
        return int(queue[block % len(queue)])

    def scene(
        self,
        number: int,
        size: tuple[int, int] | None = None,
        garments: list[int] | None = None,
        scale: float = 1,
    ) -> Scene:
        """Makes a scene; its size (height, width) and its garments are drawn where they are
        not given; scale is a factor of a drawn size. The first garment is always there,
        others where a place is found."""
        rng = np.random.default_rng([self.seed, self.split.number, 3, number])
        drawn = list(SIZES)[int(rng.choice(len(SIZES), p=list(SIZES.values())))]
        h, w = size or (round(scale * drawn[0]), round(scale * drawn[1]))
        some = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.3, 0.3, 0.2]))
        if garments is None:
            garments = [self.garment(4 * number + slot) for slot in range(some)]
        kind, canvas = draw_background(self.split, self.photos, h, w, rng)
        scene = Scene(np.zeros(0), kind)
        light = rng.uniform(math.pi, 2 * math.pi)  # from above
        strength, spread = rng.uniform(0.25, 0.6), rng.uniform(0.02, 0.045)
        for index in garments:
            label = int(self.labels[index])
            side = rng.uniform(*FRAMES[len(garments)]) * min(h, w)
            layers = cut_out(self.images[index], label)
            patch = draw_garment(layers, random_look(side, rng), light, rng)
            place = self.place(scene.visible, scene.totals, patch.solid, (h, w), rng)
            if place is None:
                continue
            self.shadow(canvas, patch, place, light, strength, spread * side)
            here, part = overlap((h, w), patch.alpha, *place)
            alpha = patch.alpha[part][..., None]
            canvas[here] += (patch.colour[part] - canvas[here]) * alpha
            own = np.zeros((h, w), bool)
            own[here] = patch.solid[part]
            scene.visible = [v & ~own for v in scene.visible] + [own]
            scene.totals.append(int(patch.solid.sum()))
            scene.labels.append(label)
            scene.garments.append(index)
        canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(0, 0.012))
        scene.image = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
        return scene

    @staticmethod
    def place(
        visible: list[Array],
        totals: list[int],
        solid: Array,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[int, int] | None:
        """Finds where a garment goes so that enough of it and of the others is seen; the
        first garment always finds a place."""
        rows, columns = np.where(solid.any(1))[0], np.where(solid.any(0))[0]
        total = int(solid.sum())
        for attempt in range(40):
            spill = 0.12 if visible or attempt < 20 else 0.0
            ends = []
            for (first, last), length in zip(
                ((rows[0], rows[-1]), (columns[0], columns[-1])), size, strict=True
            ):
                slack = spill * (last - first)
                low, high = -first - slack, length - 1 - last + slack
                middle = (low + high) / 2
                ends.append(round(rng.uniform(min(low, middle), max(high, middle))))
            y, x = ends
            here, part = overlap(size, solid, y, x)
            if solid[part].sum() < INSIDE * total:
                continue
            own = np.zeros(size, bool)
            own[here] = solid[part]
            # Someone in front covers at most 1 - VISIBLE, and hardly more on one another.
            covered = [int((v & ~own).sum()) for v in visible]
            if all(c >= VISIBLE * t for c, t in zip(covered, totals, strict=True)):
                return y, x
        return None

    @staticmethod
    def shadow(
        canvas: Array,
        patch: Patch,
        place: tuple[int, int],
        light: float,
        strength: float,
        spread: float,
    ) -> None:
        """Darkens the canvas where the garment keeps the light away."""
        pad = int(4 * spread) + 2
        soft = cv2.GaussianBlur(np.pad(patch.alpha, pad), (0, 0), max(spread, 0.5))
        y = place[0] - pad - round(math.sin(light) * 1.2 * spread)
        x = place[1] - pad - round(math.cos(light) * 1.2 * spread)
        here, part = overlap(canvas.shape[:2], soft, y, x)
        canvas[here] *= 1 - strength * soft[part][..., None]


# Files.


def load_photos(folder: Path, split: Split) -> dict[str, Image.Image]:
    """A split's photos; those without colour are grey ("L")."""
    photos = {}
    for name in split.photos:
        photo = Image.open(folder / name)
        photo.load()
        if photo.mode != "L":
            photo = photo.convert("RGB")
            pixels = np.asarray(photo.resize((64, 64)), np.float32)
            # A sepia print: its colour says nothing.
            tone = pixels / np.maximum(pixels.mean(2, keepdims=True), 1)
            if (tone.std((0, 1)) < 0.09).all():
                photo = photo.convert("L")
        photo.thumbnail((1100, 1100))
        photos[name] = photo
    return photos


def make_maker(split: Split, seed: int, photos: Path) -> Maker:
    images, labels = fashion.load_arrays(split.train)
    return Maker(split, seed, images, labels, load_photos(photos, split))


def jpeg(image: Array, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def annotate(scene: Scene, name: str, image_id: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's entries of a scene; the annotations' ids are still missing."""
    height, width = scene.image.shape[:2]
    entry = {
        "id": image_id,
        "file_name": name,
        "width": width,
        "height": height,
        "background": scene.background,
        "garments": scene.garments,
    }
    annotations = []
    for label, garment, visible in zip(scene.labels, scene.garments, scene.visible, strict=True):
        ys, xs = np.where(visible.any(1))[0], np.where(visible.any(0))[0]
        code = rle.encode(np.asfortranarray(visible.astype(np.uint8)))
        annotations.append(
            {
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [int(v) for v in (xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)],
                "area": int(visible.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
                "garment": garment,
            }
        )
    return entry, annotations


def instances(
    split: Split, seed: int, scenes: list[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> dict[str, Any]:
    """A split's COCO instances."""
    annotations = [a for _, own in scenes for a in own]
    garments = "training" if split.train else "test"
    return {
        "info": {
            "description": f"Fashion-MNIST garments on photos and textures, {split.name}",
            "seed": seed,
            "garments": f"indices in Fashion-MNIST's {garments} split",
        },
        "images": [entry for entry, _ in scenes],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(fashion.CLASSES, 1)],
    }


_maker: Maker
_folder: Path


def _begin(maker: Maker, folder: Path) -> None:
    global _maker, _folder
    cv2.setNumThreads(1)
    _maker, _folder = maker, folder


def _write(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    scene = _maker.scene(number)
    name = f"{number + 1:06d}.jpg"
    (_folder / name).write_bytes(jpeg(scene.image, 90))
    return annotate(scene, name, number + 1)


def write_split(maker: Maker, count: int, out: Path, workers: int) -> None:
    """Writes one split's pictures and annotations."""
    name = maker.split.name
    folder = out / name
    folder.mkdir(parents=True)
    (out / "annotations").mkdir(exist_ok=True)
    scenes = []
    start = shown = time.monotonic()
    with multiprocessing.get_context("fork").Pool(workers, _begin, (maker, folder)) as pool:
        for scene in pool.imap(_write, range(count), chunksize=16):
            scenes.append(scene)
            now = time.monotonic()
            if now - shown > 5 or len(scenes) == count:
                shown = now
                print(f"{name}: {len(scenes)} of {count} scenes, {now - start:.0f} s", flush=True)
    text = json.dumps(instances(maker.split, maker.seed, scenes), separators=(",", ":"))
    (out / "annotations" / f"instances_{name}.json").write_text(text)


def stamp(count: int, val: int, seed: int) -> str:
    """What the files depend on."""
    digest = hashlib.sha256()
    for script in ("make_scenes.py", "garments.py", "fetch_photos.py"):
        digest.update((Path(__file__).parent / script).read_bytes())
    versions = {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__}
    content = {"count": count, "val": val, "seed": seed, "scripts": digest.hexdigest()}
    return json.dumps({**content, **versions}) + "\n"


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside out that takes out's place at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as tmp:
        new = Path(tmp) / "new"
        new.mkdir()
        yield new
        if out.exists():
            os.rename(out, Path(tmp) / "old")
        os.rename(new, out)


def make(out: Path, count: int, val: int, seed: int, workers: int) -> None:
    """Makes the train and val splits unless they are there."""
    mark = stamp(count, val, seed)
    if (out / "stamp.json").is_file() and (out / "stamp.json").read_text() == mark:
        print(f"{out} is up to date")
        return
    photos = fetch_all()
    with whole(out) as new:
        write_split(make_maker(SPLITS["train"], seed, photos), count, new, workers)
        write_split(make_maker(SPLITS["val"], seed, photos), val, new, workers)
        (new / "stamp.json").write_text(mark)


def save_mask(classes: Array, path: Path) -> None:
    """Writes a mask as indexed PNG with Pascal VOC's colours."""
    picture = Image.fromarray(classes, "P")
    colours = []
    for index in range(256):
        bits = [sum((index >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)]
        colours += bits
    picture.putpalette(colours)
    picture.save(path, "PNG", optimize=True)


def make_testdata(out: Path, seed: int) -> None:
    """Makes the part in git: scenes of several garments, and one of each class alone."""
    maker = make_maker(SPLITS["test"], seed, fetch_all())
    scenes, singles = [], []
    with whole(out) as new:
        (new / "masks").mkdir()
        readme = out / "README.md"
        if readme.is_file():
            (new / "README.md").write_bytes(readme.read_bytes())
        for number in range(TEST_SCENES + 10):
            several = number < TEST_SCENES
            if several:
                name = f"scene_{number + 1}"
                size = TEST_SIZES[number % len(TEST_SIZES)]
                count = 2 + number % 3
                garments = [maker.garment(4 * number + slot) for slot in range(count)]
            else:
                name = f"single_{number - TEST_SCENES + 1}"
                size = SINGLE_SIZES[number % len(SINGLE_SIZES)]
                # The next whole block: every class once.
                block = (4 * TEST_SCENES + 9) // 10
                garments = [maker.garment(10 * block + number - TEST_SCENES)]
            scene = maker.scene(number, size, garments)
            (new / f"{name}.jpg").write_bytes(jpeg(scene.image, 90))
            classes = np.zeros(scene.image.shape[:2], np.uint8)
            for label, visible in zip(scene.labels, scene.visible, strict=True):
                classes[visible] = label + 1
            save_mask(classes, new / "masks" / f"{name}.png")
            if not several:
                singles.append(f"{name}.jpg,{fashion.CLASSES[scene.labels[0]]}\n")
            scenes.append(annotate(scene, f"{name}.jpg", number + 1))
        text = json.dumps(instances(maker.split, seed, scenes), indent=1)
        (new / "instances.json").write_text(text + "\n")
        (new / "singles.csv").write_text("path,label\n" + "".join(singles))


def make_small(out: Path, seed: int) -> None:
    """Makes the part in git to train on: small scenes of train's garments and backgrounds."""
    maker = make_maker(SPLITS["train"], seed, fetch_all())
    scenes = []
    with whole(out) as new:
        for number in range(SMALL_SCENES):
            scene = maker.scene(number, scale=0.5)
            name = f"{number + 1:06d}.jpg"
            (new / name).write_bytes(jpeg(scene.image, 85))
            scenes.append(annotate(scene, name, number + 1))
        text = json.dumps(instances(maker.split, seed, scenes), separators=(",", ":"))
        (new / "instances.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT, help="folder (default %(default)s)")
    parser.add_argument("--count", type=int, default=6000, help="train scenes (%(default)s)")
    parser.add_argument("--val", type=int, default=500, help="val scenes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--testdata", action="store_true", help="make the part in git instead")
    args = parser.parse_args()
    if args.count < 1 or args.val < 1 or args.workers < 1 or args.seed < 0:
        parser.error("--count, --val and --workers want 1 or more, --seed 0 or more")
    if args.testdata:
        out = TESTDATA if args.out == DEFAULT else args.out.resolve()
        make_testdata(out, args.seed)
        make_small(out.with_name(f"{out.name}_train"), args.seed)
        return
    make(args.out.resolve(), args.count, args.val, args.seed, args.workers)


if __name__ == "__main__":
    main()
