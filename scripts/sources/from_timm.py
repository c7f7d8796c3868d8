"""timm:NAME: any of timm's image models by name, without downloads."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import VisionTransformer as TimmModel
from torch import nn

from models.timm_wrapper import TimmVisionTransformer
from sources import Source, default_labels, fill, first_line, keyword_args, pair, spec


def create(name: str, dynamic: bool, **kwargs: Any) -> nn.Module:
    """timm.create_model without weights; a ViT takes any size where it can."""
    if name not in timm.list_models() and name not in timm.list_models(pretrained=True):
        close = ", ".join(timm.list_models(f"*{name}*")[:5]) or "see timm.list_models()"
        raise SystemExit(f"timm:{name}: timm has no such model: {close}")
    trials = [{**kwargs, "dynamic_img_size": True}, kwargs] if dynamic else [kwargs]
    error: BaseException | None = None
    for trial in trials:
        try:
            return timm.create_model(name, pretrained=False, scriptable=True, **trial).eval()
        except (RuntimeError, TypeError, AssertionError, ValueError) as caught:
            error = caught
    raise SystemExit(f"timm:{name}: timm cannot make it: {first_line(error)}")


def native_size(model: nn.Module, kwargs: dict[str, Any]) -> tuple[int, int]:
    """The size that the model was made for."""
    embed = getattr(model, "patch_embed", None)
    for value in (kwargs.get("img_size"), getattr(embed, "img_size", None)):
        if value is not None:
            return pair(value)
    config = getattr(model, "pretrained_cfg", None) or {}
    return pair(list(config.get("input_size", (3, 224, 224)))[1:])


def preprocess(config: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """timm's evaluation transform as data."""
    crop_pct = float(config["crop_pct"])
    scaled = [int(size[0] / crop_pct), int(size[1] / crop_pct)]
    mean, std = list(config["mean"]), list(config["std"])
    mode, colour = config["crop_mode"], None
    if mode == "squash":
        rule, target = "exact", scaled
    elif mode == "border":
        rule, target, colour = "contain", scaled, [min(255, round(255 * m)) for m in mean]
    elif scaled[0] == scaled[1]:
        rule, target = "shortest_edge", scaled[:1]
    else:
        rule, target = "cover", scaled
    return spec(
        rule, target, mean, std, str(config["interpolation"]), crop=list(size), fill_colour=colour
    )


def load(name: str, args: argparse.Namespace) -> Source:
    """Makes the source of timm:NAME."""
    kwargs = keyword_args(args.arg)
    if args.num_classes is not None:
        kwargs["num_classes"] = args.num_classes
    if args.size is not None:
        kwargs["img_size"] = args.size
    features = args.features or args.task == "features"
    if features:
        kwargs["features_only"] = True
    try:
        model = create(name, not args.fixed_size, **kwargs)
    except SystemExit:
        if args.size is None:
            raise
        # A model of convolutions, which has no size of its own.
        kwargs.pop("img_size")
        model = create(name, not args.fixed_size, **kwargs)
    size = args.size or native_size(model, kwargs)
    inner = getattr(model, "model", model) if features else model
    config = dict(getattr(inner, "pretrained_cfg", None) or {})
    config["input_size"] = (3, *size)
    config = resolve_data_config({"input_size": (3, *size)}, pretrained_cfg=config)
    fill(model, args)

    step = 32
    embed = getattr(inner, "patch_embed", None)
    if getattr(embed, "patch_size", None) is not None:
        step = pair(embed.patch_size)[0]
        # A hierarchy of windows halves its grid three times.
        if step < 8:
            step *= 8
    source = Source(
        model=model,
        architecture=name,
        task="features" if features else "classification",
        kind="features" if features else "logits",
        size=size,
        step=step,
        preprocess=preprocess(config, size),
    )
    transform = create_transform(**{**config, "input_size": (3, *size)}, is_training=False)
    source.processor = lambda image: transform(image)
    if features:
        source.modes = ("script", "trace")
        return source
    count = int(getattr(model, "num_classes", 0))
    if count == 0:
        raise SystemExit(
            f"timm:{name}: has no classifier: give --num-classes, such as 1000, or --features"
        )
    source.labels = default_labels("classification", count)
    if isinstance(model, TimmModel):
        with contextlib.suppress(TypeError):
            wrap(source, model)
    return source


def wrap(source: Source, model: TimmModel) -> None:
    """Gives a plain ViT the methods of the reference model. TypeError for others."""
    wrapper = TimmVisionTransformer(model)
    plain = Source(**{**vars(source)})
    plain.notes = ["forward alone, without the methods of a ViT"]
    source.plain = plain
    source.model, source.eager = wrapper, timm_forward(model)
    source.methods, source.modes = True, ("script",)
    source.tokens = tokens(wrapper)
    source.multiple_of = wrapper.patch_size[0]


def timm_forward(model: nn.Module) -> Any:
    """timm's own forward, whatever class its blocks have."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return model(x)

    return forward


def tokens(model: nn.Module) -> dict[str, Any]:
    """The "tokens" part of torchvit.json."""
    return {
        "patch_size": [int(v) for v in model.patch_size],
        "prefix": int(model.num_prefix_tokens),
        "num_heads": int(model.num_heads),
        "depth": int(model.depth),
        "embed_dim": int(model.embed_dim),
    }
