"""smp:ARCH+ENCODER: segmentation-models-pytorch, without downloads."""

from __future__ import annotations

import argparse
from typing import Any

from sources import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    default_labels,
    fill,
    first_line,
    keyword_args,
    need,
    spec,
)


def load(name: str, args: argparse.Namespace) -> Source:
    """Makes the source of smp:ARCH+ENCODER, such as Unet+resnet18."""
    smp = need("segmentation-models-pytorch", "segmentation_models_pytorch", "smp:" + name)
    arch, sep, encoder = name.partition("+")
    if not sep:
        raise SystemExit(f"smp:{name}: want ARCH+ENCODER, such as Unet+resnet18")
    kwargs = keyword_args(args.arg)
    classes = int(kwargs.pop("classes", 1))
    if args.num_classes is not None:
        classes = args.num_classes
    kwargs.setdefault("encoder_weights", None)
    try:
        model = smp.create_model(arch, encoder_name=encoder, classes=classes, **kwargs).eval()
    except KeyError as error:
        raise SystemExit(f"smp:{name}: {first_line(error)}") from None
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"smp:{name}: cannot be made: {first_line(error)}") from None
    fill(model, args)
    mean, std = normalisation(encoder)
    fixed = encoder_size(model)
    size = args.size or fixed or (512, 512)
    step = int(getattr(model.encoder, "output_stride", 32) or 32)
    # The photo's shape is kept where the model takes it.
    if fixed is not None:
        rule, target, multiple = "exact", list(size), 0
    else:
        rule, target, multiple = "shortest_edge", [min(size)], max(step, 32)
    labels = ["mask"] if classes == 1 else default_labels("segmentation", classes)
    return Source(
        model=model,
        architecture=name,
        task="segmentation",
        kind="segmentation_logits",
        size=size,
        step=max(step, 32),
        preprocess=spec(rule, target, mean, std, multiple_of=multiple),
        labels=labels,
        thresholds={"mask": 0.5} if classes == 1 else {},
    )


def normalisation(encoder: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of an encoder: timm's for "tu-" names, else ImageNet's,
    which all of smp's own encoders have."""
    if encoder.startswith("tu-"):
        import timm

        config: Any = timm.models.get_pretrained_cfg(encoder[3:])
        if config is not None:
            return list(config.mean), list(config.std)
    return IMAGENET_MEAN, IMAGENET_STD


def encoder_size(model: Any) -> tuple[int, int] | None:
    """The one size that a ViT as encoder takes, or None."""
    for module in model.encoder.modules():
        embed = getattr(module, "patch_embed", None)
        if embed is not None and getattr(embed, "img_size", None) is not None:
            dynamic = bool(getattr(module, "dynamic_img_size", False))
            return None if dynamic else (int(embed.img_size[0]), int(embed.img_size[1]))
    return None
