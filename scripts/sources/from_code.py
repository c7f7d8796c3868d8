"""MODULE:ATTRIBUTE: a model of the user's own code.

ATTRIBUTE is a torch.nn.Module, a class of one, or a function that makes one; --arg gives
the arguments. MODULE is looked for in the working folder and on Python's path.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modelfile
from sources import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    default_labels,
    fill,
    first_line,
    keyword_args,
    noise,
    plain_spec,
    spec,
)

TASKS = ("classification", "segmentation", "detection", "features")


def load(text: str, args: argparse.Namespace) -> Source:
    """Makes the source of MODULE:ATTRIBUTE."""
    if args.task not in TASKS:
        raise SystemExit(f"{text}: give --task, one of {', '.join(TASKS)}")
    model = make(text, args)
    fill(model, args, seeded=False)
    model.eval()
    inputs = example_inputs(args)
    single = len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4
    try:
        with torch.inference_mode():
            answer = model(*inputs)
    except Exception as error:
        raise SystemExit(f"{text}: does not take the example inputs: {first_line(error)}") from None
    listed = isinstance(inputs[0], list)
    kind, classes = recognise(args, answer)
    size = args.size or (224, 224)
    first = inputs[0][0] if listed else inputs[0]
    if first.ndim >= 2:
        size = (int(first.shape[-2]), int(first.shape[-1]))
    source = Source(
        model=model,
        architecture=text,
        task=args.task,
        kind=kind,
        layout="list" if listed else "batch",
        size=size,
        preprocess=preprocess(args, size, listed),
        labels=[] if args.task == "features" else default_labels(args.task, classes),
        leaves=list(args.leaf),
    )
    if kind == "set_prediction" or kind == "set_prediction_sigmoid" or kind == "detections":
        source.thresholds = {"score": 0.5}
    npy = any(name.endswith(".npy") for name in args.input)
    if listed:
        source.sizes = [size, (size[0] + 32, size[1]), (size[0], size[1] + 64)]
        source.answer = lambda given: (
            given[1] if isinstance(given, tuple) and not isinstance(answer, tuple) else given
        )
    elif not single or npy:
        source.inputs = [inputs]
    return source


def make(text: str, args: argparse.Namespace) -> nn.Module:
    """Imports and, where it is no module yet, calls the attribute."""
    name, _, attribute = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"{text}: {first_line(error)}") from None
    if isinstance(value, nn.Module):
        if args.arg:
            raise SystemExit(f"{text}: is a module already, and takes no --arg")
        return value
    if not callable(value):
        raise SystemExit(
            f"{text}: got a {type(value).__name__}, want a torch.nn.Module or its maker"
        )
    torch.manual_seed(args.seed)
    try:
        value = value(**keyword_args(args.arg))
    except TypeError as error:
        raise SystemExit(f"{text}: {first_line(error)}") from None
    if not isinstance(value, nn.Module):
        raise SystemExit(f"{text}: made a {type(value).__name__}, want a torch.nn.Module")
    return value


def example_inputs(args: argparse.Namespace) -> list[Any]:
    """--input as tensors; those with --layout list are one list of images."""
    height, width = args.size or (224, 224)
    given = args.input or [
        f"1x3x{height}x{width}" if args.layout != "list" else f"3x{height}x{width}"
    ]
    tensors: list[Tensor] = []
    for seed, text in enumerate(given):
        if text.endswith(".npy"):
            if not Path(text).is_file():
                raise SystemExit(f"--input {text}: no such file")
            tensors.append(torch.from_numpy(np.load(text)))
            continue
        try:
            shape = [int(v) for v in text.lower().split("x")]
        except ValueError:
            raise SystemExit(
                f"--input {text}: want a shape such as 1x3x224x224, or a .npy"
            ) from None
        tensor = noise(shape, seed)
        # A detector of photos takes 0..1.
        tensors.append((tensor + 2) / 4 if args.layout == "list" else tensor)
    return [tensors] if args.layout == "list" else list(tensors)


def preprocess(args: argparse.Namespace, size: tuple[int, int], listed: bool) -> dict[str, Any]:
    """--preprocess: a JSON file, "imagenet", "half" or "none"; none is what a list of photos
    needs."""
    import json

    wanted = args.preprocess or ("none" if listed else "imagenet")
    if wanted == "none":
        return plain_spec()
    if wanted in ("imagenet", "half"):
        mean, std = (
            (IMAGENET_MEAN, IMAGENET_STD) if wanted == "imagenet" else ([0.5] * 3, [0.5] * 3)
        )
        return spec("exact", list(size), mean, std)
    try:
        data = json.loads(Path(wanted).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"--preprocess {wanted}: {first_line(error)}") from None
    return data.get("preprocess", data)


def recognise(args: argparse.Namespace, answer: Any) -> tuple[str, int]:
    """The kind of the answer and its number of classes, by its form."""
    try:
        leaves = modelfile.flatten(answer)
    except TypeError as error:
        raise SystemExit(f"the model's answer: {first_line(error)}") from None
    arrays = [leaves[name] for name in args.leaf] if args.leaf else list(leaves.values())
    shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in leaves.items())
    if args.task == "features":
        return "features", 0
    if args.kind is not None:
        kind = args.kind
    elif args.task == "classification":
        kind = "logits" if arrays and arrays[0].ndim == 2 else ""
    elif args.task == "segmentation":
        integral = bool(arrays) and arrays[0].dtype.kind == "i"
        kind = "class_map" if integral else "segmentation_logits"
        if not arrays or not (arrays[0].ndim == 4 or integral and arrays[0].ndim == 3):
            kind = ""
    elif any(name.endswith(".boxes") for name in leaves):
        kind = "detections"
    elif len(arrays) >= 2 and arrays[0].ndim == 3 and arrays[1].shape[-1:] == (4,):
        kind = "set_prediction"
    else:
        kind = ""
    if not kind:
        raise SystemExit(f"the answer's kind is not known by its form, {shapes}: give --kind")
    classes = {
        "logits": lambda: arrays[0].shape[1],
        "segmentation_logits": lambda: arrays[0].shape[1],
        "class_map": lambda: int(arrays[0].max()) + 1,
        "set_prediction": lambda: arrays[0].shape[2] - 1,
        "set_prediction_sigmoid": lambda: arrays[0].shape[2],
        "yolo": lambda: arrays[0].shape[1] - 4,
    }
    found = classes[kind]() if kind in classes else (args.num_classes or 0)
    return kind, int(args.num_classes or found)
