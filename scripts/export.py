"""Turns a model into a model file: TorchScript with torchvit.json and a reference inside.

    # a timm ViT by name, with seeded weights or a local checkpoint
    .venv/bin/python scripts/export.py timm vit_tiny_patch16_224 --out vit_tiny.pt
    .venv/bin/python scripts/export.py timm vit_base_patch16_224 \\
        --checkpoint vit_base.safetensors --out vit_base.pt
    .venv/bin/python scripts/export.py timm vit_small_patch14_dinov2 \\
        --arg img_size=224 --arg num_classes=1000 --out dinov2.pt

    # the reference models
    .venv/bin/python scripts/export.py vit --img-size 224 --patch-size 16 --out vit.pt
    .venv/bin/python scripts/export.py segmentation --num-classes 21 --out seg.pt
    .venv/bin/python scripts/export.py head --embed-dim 192 --num-classes 21 --out head.pt
    .venv/bin/python scripts/export.py detection --num-classes 8 --out det.pt

The file's methods are forward, forward_features, forward_with_attention, forward_blocks
and attention (a head and a detector have forward only). The reference holds a few inputs
and the answers that torch.jit.load of the finished file gave with --threads threads;
`torchvit verify FILE` replays them. The file is written whole or not at all.

Weights: --checkpoint takes .pt, .pth or .safetensors with timm's or DINO's names; what is
missing or unexpected is reported on stderr, and missing parameters are an error unless
--allow-missing (they then keep seeded values). Without --checkpoint all weights are
seeded (--seed), the head included.
"""

from __future__ import annotations

import argparse
import ast
from typing import Any

import torch

from models.timm_wrapper import create_timm_vit
from models.vision_transformer import to_pair
from reference_files import (
    add_commands,
    add_common,
    apply_weights,
    imagenet_labels,
    read_labels,
    timm_preprocess,
    write_vit,
)


def parse_args_list(pairs: list[str]) -> dict[str, Any]:
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


def command_timm(args: argparse.Namespace) -> dict[str, Any]:
    """export.py timm NAME"""
    kwargs = parse_args_list(args.arg)
    if args.num_classes is not None:
        kwargs["num_classes"] = args.num_classes
    if args.fixed_size:
        kwargs["dynamic_img_size"] = False
    model = create_timm_vit(args.name, **kwargs)
    if model.num_classes == 0:
        raise SystemExit(f"{args.name} has no classifier: give --num-classes, such as 1000")
    apply_weights(model, args)
    size = to_pair(model.vit.patch_embed.img_size)
    dynamic = bool(model.vit.dynamic_img_size)
    spec = timm_preprocess(model.vit, size)
    labels = read_labels(args, model.num_classes, imagenet_labels(model.num_classes))
    return write_vit(model, args.out, args.name, "classification", size, dynamic, spec, labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser("timm", help="any plain timm ViT by name (DeiT, DINOv2, registers)")
    sub.add_argument("name", help="timm's model name, such as vit_tiny_patch16_224")
    sub.add_argument(
        "--arg", action="append", default=[], metavar="KEY=VALUE",
        help="argument of timm.create_model, such as img_size=224 or depth=6; may be repeated",
    )  # fmt: skip
    sub.add_argument(
        "--fixed-size", action="store_true", help="refuse other image sizes than the model's own"
    )
    add_common(sub, None)
    sub.set_defaults(run=command_timm)

    add_commands(commands)

    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    metadata = args.run(args)
    size = args.out.stat().st_size / 1e6
    calls = len(metadata["reference"]["calls"])
    print(f"{args.out}: {metadata['architecture']}, {size:.1f} MB, {calls} reference calls")


if __name__ == "__main__":
    main()
