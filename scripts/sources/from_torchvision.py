"""torchvision:NAME: classifiers, segmentation and detection models, without downloads."""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionModel

from models.torchvision_wrapper import TorchvisionVisionTransformer
from sources import Source, default_labels, fill, first_line, keyword_args, plain_spec, spec
from sources.from_timm import tokens


def family(builder: Any) -> str:
    """The task of one of torchvision's model builders."""
    module = builder.__module__
    for part, task in (("segmentation", "segmentation"), ("detection", "detection")):
        if f"models.{part}." in module:
            return task
    for part in ("quantization", "video", "optical_flow"):
        if f"models.{part}" in module:
            raise SystemExit(f"torchvision:{builder.__name__}: models for {part} are not supported")
    return "classification"


def load(name: str, args: argparse.Namespace) -> Source:
    """Makes the source of torchvision:NAME."""
    try:
        builder = torchvision.models.get_model_builder(name)
    except ValueError:
        close = ", ".join(torchvision.models.list_models(include=f"*{name}*")[:5])
        raise SystemExit(
            f"torchvision:{name}: torchvision has no such model"
            + (f": {close}" if close else ": see torchvision.models.list_models()")
        ) from None
    task = family(builder)
    kwargs = keyword_args(args.arg)
    if args.num_classes is not None:
        kwargs["num_classes"] = args.num_classes
    weights = choose_weights(name, args.weights)
    if task == "classification":
        return classifier(name, weights, kwargs, args)
    kwargs.setdefault("weights_backbone", None)
    if task == "segmentation":
        return segmentation(name, weights, kwargs, args)
    return detector(name, weights, kwargs, args)


def choose_weights(name: str, wanted: str | None) -> Any:
    """The published weights whose preprocess and labels the model gets."""
    known = torchvision.models.get_model_weights(name)
    if wanted is None:
        return next(iter(known), None) if name.startswith("vit_") else known.DEFAULT
    try:
        return known[wanted]
    except KeyError:
        names = ", ".join(w.name for w in known)
        raise SystemExit(f"torchvision:{name}: no weights {wanted}, want one of {names}") from None


def make(name: str, kwargs: dict[str, Any]) -> nn.Module:
    """torchvision.models.get_model without weights."""
    try:
        return torchvision.models.get_model(name, weights=None, **kwargs).eval()
    except (TypeError, ValueError) as error:
        raise SystemExit(f"torchvision:{name}: cannot be made: {first_line(error)}") from None


def classifier(name: str, weights: Any, kwargs: dict[str, Any], args: argparse.Namespace) -> Source:
    """A classifier, with the methods of a ViT where it is one."""
    transform = weights.transforms()
    crop = int(transform.crop_size[0])
    short = int(transform.resize_size[0])
    size = args.size or (crop, crop)
    if size != (crop, crop):
        short = round(short * size[0] / crop)
        transform.crop_size, transform.resize_size = list(size), [short]
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise SystemExit(f"torchvision:{name}: got --size {size}, want a square")
        kwargs.setdefault("image_size", size[0])
    model = make(name, kwargs)
    fill(model, args)
    rule, target = ("shortest_edge", [short]) if size[0] == size[1] else ("exact", list(size))
    count = count_classes(model)
    source = Source(
        model=model,
        architecture=name,
        task="classification",
        kind="logits",
        size=size,
        preprocess=spec(
            rule,
            target,
            transform.mean,
            transform.std,
            transform.interpolation.value,
            crop=list(size),
        ),
        labels=weights.meta["categories"]
        if count == len(weights.meta["categories"])
        else default_labels("classification", count),
        processor=transform if size[0] == size[1] else None,
    )
    if isinstance(model, TorchvisionModel):
        wrapper = TorchvisionVisionTransformer(model)
        source.plain = Source(**{**vars(source)})
        source.model, source.eager = wrapper, lambda x: model(x)
        source.methods, source.modes = True, ("script",)
        source.tokens = tokens(wrapper)
        source.step = source.multiple_of = wrapper.patch_size[0]
        source.plain.step = source.step
    return source


def count_classes(model: nn.Module) -> int:
    """Classes of a classifier: those of its last linear layer or 1x1 convolution."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    last = layers[-1]
    return int(last.out_features if isinstance(last, nn.Linear) else last.out_channels)


def segmentation(
    name: str, weights: Any, kwargs: dict[str, Any], args: argparse.Namespace
) -> Source:
    """fcn, deeplabv3 and lraspp: {"out": logits at the input's size, "aux": ...}."""
    transform = weights.transforms()
    short = args.size[0] if args.size else int(transform.resize_size[0])
    transform.resize_size = [short]
    model = make(name, kwargs)
    fill(model, args)
    with torch.inference_mode():
        count = int(model(torch.zeros(1, 3, 64, 64))["out"].shape[1])
    size = args.size or (short, short)
    return Source(
        model=model,
        architecture=name,
        task="segmentation",
        kind="segmentation_logits",
        leaves=["out.out"],
        size=size,
        preprocess=spec(
            "shortest_edge", [short], transform.mean, transform.std, transform.interpolation.value
        ),
        labels=default_labels("segmentation", count),
        processor=transform,
    )


def detector(name: str, weights: Any, kwargs: dict[str, Any], args: argparse.Namespace) -> Source:
    """Faster R-CNN, Mask R-CNN, RetinaNet, FCOS, SSD: a list of photos of any size."""
    if "keypoint" in name:
        raise SystemExit(f"torchvision:{name}: keypoints are not supported")
    model = make(name, kwargs)
    fill(model, args)
    # Else a scripted file writes a line about its return type to stderr at its first call.
    model._has_warned = True
    labels = weights.meta["categories"]
    count = int(kwargs.get("num_classes", len(labels)))
    if count != len(labels):
        labels = ["__background__"] + [f"class {i}" for i in range(1, count)]
    transform = model.transform
    sizes, known = agreement(transform)
    return Source(
        model=model,
        architecture=name,
        task="detection",
        kind="detections",
        layout="list",
        size=sizes[0],
        sizes=sizes,
        preprocess=plain_spec(),
        labels=list(labels),
        thresholds={"score": 0.5, **({"mask": 0.5} if "mask" in name else {})},
        modes=("script",),
        # A scripted detector gives its losses too.
        answer=lambda answer: answer[1] if isinstance(answer, tuple) else answer,
        known=known,
    )


def agreement(transform: GeneralizedRCNNTransform) -> tuple[list[tuple[int, int]], Any]:
    """Sizes of photos to try, and why some differ.

    The scripted resize computes its scale in float32 and eager Python's in float64, which
    gives another size for about half of all photos. The first sizes are of those where the
    two agree, the last is one where they do not.
    """
    if transform.fixed_size is not None:
        height, width = int(transform.fixed_size[1]), int(transform.fixed_size[0])
        sizes = [(height, width), (height // 2, width), (height + 40, width - 20)]
        return sizes, lambda height, width: ""
    scripted = torch.jit.script(transform)
    short = int(transform.min_size[-1])

    def resized(height: int, width: int) -> tuple[Any, Any]:
        image = torch.zeros(3, height, width)
        with torch.inference_mode():
            return transform([image])[0].image_sizes[0], scripted([image])[0].image_sizes[0]

    def known(height: int, width: int) -> str:
        eager, ours = resized(height, width)
        if eager == ours:
            return ""
        return (
            f"TorchScript computes the resize in float32: {ours[0]}x{ours[1]}, eager Python "
            f"{eager[0]}x{eager[1]}"
        )

    agree: list[tuple[int, int]] = []
    differ: list[tuple[int, int]] = []
    base = max(64, min(short, 480))
    shapes = [(base, base * 4 // 3), (base, base), (base * 3 // 4, base), (base * 3 // 2, base)]
    shapes += [(base * 3 // 4 + 7 * i, base + 11 * i) for i in range(1, 30)]
    for shape in shapes:
        if len(agree) >= 3 and differ:
            break
        # A batch of check has photos that are 8 and 16 pixels narrower.
        if known(*shape):
            differ.append(shape)
        elif not any(known(shape[0], shape[1] - 8 * i) for i in (1, 2)):
            agree.append(shape)
    return agree[:3] + differ[:1], known
