"""Models from elsewhere, each described as one :class:`Source`.

    timm:NAME              sources.from_timm
    torchvision:NAME       sources.from_torchvision
    hf:FOLDER-or-config    sources.from_huggingface
    smp:ARCH+ENCODER       sources.from_smp
    MODULE:ATTRIBUTE       sources.from_code, the user's own

A source says what the model is, what it takes and what its answers mean; ``sources.check``
scripts or traces it and compares the result with eager Python.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import modelfile
from models.weights import load_checkpoint, seed_weights

LABELS = Path(__file__).resolve().parent.parent.parent / "vit" / "labels"
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

LIBRARIES = {
    "timm": "from_timm",
    "torchvision": "from_torchvision",
    "hf": "from_huggingface",
    "smp": "from_smp",
}


@dataclass
class Source:
    """A model and all that is known of it before it is tried.

    Its sizes are (height, width) in pixels.
    """

    # What is scripted or traced: float32 in, tensors in tuples, lists and dicts out.
    model: nn.Module
    architecture: str
    task: str
    # The size that it was made for.
    size: tuple[int, int]
    preprocess: dict[str, Any]
    # One of vit.Output*, "" where the form of the answer tells.
    kind: str = ""
    # "batch" or "list": torchvision's detectors take a list of images.
    layout: str = "batch"
    labels: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    tokens: dict[str, Any] | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    # Sizes to be tried differ from size by multiples of this.
    step: int = 32
    # Divides the sides of every input; 0 is found by trying.
    multiple_of: int = 0
    # Whose answers count: the library's own model, where model is a wrapper around it.
    eager: Callable[..., Any] | None = None
    # Tried in turn until one matches: "script", "trace", and "parts", which build makes.
    modes: tuple[str, ...] = ("script", "trace")
    # Makes a scripted module around traced parts, with the methods of a ViT.
    build: Callable[[], torch.jit.ScriptModule] | None = None
    # The file has the methods of the reference ViT: forward_features, attention ...
    methods: bool = False
    # What is tried where model itself neither scripts nor traces: the library's own model,
    # with forward alone.
    plain: Source | None = None
    # The library's own preprocess, RGB image -> (3, H, W), to compare ours with.
    processor: Callable[[Image.Image], Tensor] | None = None
    # Inputs to try in place of those made from size.
    inputs: list[list[Tensor]] = field(default_factory=list)
    # Turns the answer of a TorchScript file into the form of the eager one.
    answer: Callable[[Any], Any] | None = None
    # Says why a size differs, where that is known: (height, width) -> text or "".
    known: Callable[[int, int], str] | None = None
    # Sizes to be tried for layout "list".
    sizes: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(text: str, args: argparse.Namespace) -> Source:
    """Makes the source that export.py's first argument names."""
    library, sep, name = text.partition(":")
    if not sep or not library or not name:
        raise SystemExit(
            f"{text}: want timm:NAME, torchvision:NAME, hf:FOLDER-or-config, smp:ARCH+ENCODER "
            "or MODULE:ATTRIBUTE"
        )
    module = importlib.import_module("sources." + LIBRARIES.get(library, "from_code"))
    return module.load(name if library in LIBRARIES else text, args)


def need(package: str, module: str, source: str) -> Any:
    """Imports a library that not every installation has."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SystemExit(
            f"{source}: needs {package}, which cannot be imported ({first_line(error)}): "
            "pip install -r scripts/requirements-parity.txt"
        ) from None


def first_line(error: BaseException, limit: int = 200) -> str:
    """The line of an error that says most: TorchScript's last, others' first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[0]
    for line in lines:  # of a traceback within TorchScript
        if re.match(r"(builtins\.)?[A-Za-z]*(Error|Exception): .", line):
            text = line.removeprefix("builtins.")
    text = re.sub(r':? *File "[^"]*", line \d+.*$', "", text)  # not the exporter's folders
    if text.endswith(":") and len(lines) > 1 and not lines[1].startswith("File"):
        text += " " + lines[1]
    return text if len(text) <= limit else text[: limit - 3] + "..."


def keyword_args(pairs: list[str]) -> dict[str, Any]:
    """key=value pairs of --arg, the values read as Python literals where they are some."""
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        key, sep, value = pair.partition("=")
        if not sep:
            raise SystemExit(f"--arg {pair}: want KEY=VALUE")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def fill(model: nn.Module, args: argparse.Namespace, seeded: bool = True) -> None:
    """Seeds all weights, then loads --checkpoint over them and reports what it lacks."""
    if seeded:
        seed_weights(model, args.seed)
    if args.checkpoint is None:
        return
    report = load_checkpoint(model, args.checkpoint, core="")
    tell(str(args.checkpoint), report.lines())
    demand(str(args.checkpoint), len(report.missing), len(report.mismatched), args.allow_missing)


def tell(what: str, lines: list[str]) -> None:
    """Prints facts on stderr, one a line."""
    for line in lines:
        print(f"{what}: {line}", file=sys.stderr)


def demand(what: str, missing: int, mismatched: int, allowed: bool) -> None:
    """Ends where a checkpoint lacks parameters, unless that is allowed."""
    if (missing or mismatched) and not allowed:
        raise SystemExit(
            f"{what}: {missing} parameters missing and {mismatched} of the wrong shape; "
            "--allow-missing keeps seeded values"
        )


def label_set(name: str) -> list[str]:
    """The names of a data set's classes, by class id."""
    return (LABELS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def default_labels(task: str, count: int) -> list[str]:
    """The labels of the data set that has so many classes, else class numbers."""
    sets = {
        "classification": {1000: "imagenet"},
        "segmentation": {150: "ade20k", 21: "voc", 19: "cityscapes"},
        "detection": {91: "coco91", 80: "coco"},
    }
    name = sets.get(task, {}).get(count)
    return label_set(name) if name else [f"class {i}" for i in range(count)]


def spec(
    rule: str,
    size: list[int],
    mean: list[float],
    std: list[float],
    interpolation: str = "bilinear",
    backend: str = "pil",
    max_size: int = 0,
    multiple_of: int = 0,
    crop: list[int] | None = None,
    crop_rule: str = "center",
    fill_colour: list[int] | None = None,
    normalize: str = "torchvision",
) -> dict[str, Any]:
    """The "preprocess" part of torchvit.json."""
    cut: dict[str, Any] = {"rule": crop_rule if crop else "none", "size": list(crop or [])}
    if crop and fill_colour:
        cut["fill"] = fill_colour
    return {
        "backend": backend,
        "resize": {
            "rule": rule,
            "size": [int(v) for v in size],
            "max_size": int(max_size),
            "multiple_of": int(multiple_of),
        },
        "interpolation": interpolation,
        "antialias": True,
        "crop": cut,
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "normalize": normalize,
    }


def plain_spec() -> dict[str, Any]:
    """Decode and divide by 255: what torchvision's detectors take."""
    return spec("none", [], [0.0] * 3, [1.0] * 3, normalize="none")


def pair(value: Any) -> tuple[int, int]:
    """(height, width) from one number, a pair or {"height", "width"}."""
    if isinstance(value, dict):
        return int(value["height"]), int(value["width"])
    if isinstance(value, (list, tuple)):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


def noise(shape: list[int], seed: int) -> Tensor:
    """Input of a check and of a reference."""
    return modelfile.noise(shape, seed)
