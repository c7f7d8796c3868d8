"""Turns a model into a model file: TorchScript with torchvit.json and a reference inside.

    # timm, by name: a plain ViT gets every method, other classifiers forward alone
    .venv/bin/python scripts/export.py timm:vit_base_patch16_224 \\
        --checkpoint vit_base.safetensors --out vit_base.pt
    .venv/bin/python scripts/export.py timm:vit_small_patch14_dinov2 --features --out dinov2.pt

    # torchvision: classifiers, segmentation, detection
    .venv/bin/python scripts/export.py torchvision:fasterrcnn_resnet50_fpn \\
        --checkpoint fasterrcnn.pth --out detector.pt

    # Hugging Face: a local folder, or a configuration with seeded weights
    .venv/bin/python scripts/export.py hf:path/to/segformer-b0 --out segformer.pt
    .venv/bin/python scripts/export.py hf:ViTConfig --arg hidden_size=192 --out vit.pt

    # segmentation-models-pytorch, and code of your own
    .venv/bin/python scripts/export.py smp:Unet+resnet18 --checkpoint unet.pt --out unet.pt
    .venv/bin/python scripts/export.py mypackage.models:make_model --arg width=64 \\
        --task segmentation --input 1x3x256x256 --checkpoint best.pth --out mine.pt

    # the reference models
    .venv/bin/python scripts/export.py vit --img-size 224 --patch-size 16 --out vit.pt
    .venv/bin/python scripts/export.py segmentation --num-classes 21 --out seg.pt
    .venv/bin/python scripts/export.py head --embed-dim 192 --num-classes 21 --out head.pt
    .venv/bin/python scripts/export.py detection --num-classes 8 --out det.pt

A source is scripted where that compiles and gives eager Python's answers, else traced; a
Hugging Face ViT is made of traced parts, so that it has every method. The result is compared
with eager Python at several sizes and batches; what works, and what differs and why, is
reported and kept in the file as torchvit.export.json. A model that differs at its own size is
refused unless --allow-different. docs/models.md lists what works.

The reference holds a few inputs and the answers that torch.jit.load of the finished file gave
with --threads threads; `torchvit verify FILE` replays them. The file is written whole or not
at all.

Weights: --checkpoint takes .pt, .pth or .safetensors with the library's own names; what is
missing or unexpected is reported on stderr, and missing parameters are an error unless
--allow-missing (they then keep seeded values). Without --checkpoint all weights are seeded
(--seed), the head included; a user's own code keeps the weights that it has.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import modelfile
import sources
from reference_files import (
    PHOTO,
    add_commands,
    add_common,
    palette,
    parse_size,
    photo_bytes,
    read_labels,
    vit_calls,
)
from sources.check import Result, check, check_preprocess

EXPORT = "torchvit.export.json"
# Resize rules whose result depends on the photo's shape.
LOOSE_RULES = ("none", "shortest_edge", "longest_edge", "detr", "yolos", "dpt", "max_edges")


def source_parser() -> argparse.ArgumentParser:
    """The command line for a model from elsewhere."""
    parser = argparse.ArgumentParser(
        prog="export.py",
        description="Exports a model of timm, torchvision, Hugging Face transformers, "
        "segmentation-models-pytorch or the user's own code.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="timm:NAME, torchvision:NAME, hf:FOLDER or hf:CONFIG, smp:ARCH+ENCODER, "
        "or MODULE:ATTRIBUTE",
    )
    add_common(parser, None)
    parser.add_argument(
        "--arg", action="append", default=[], metavar="KEY=VALUE",
        help="argument of the model's maker or field of its configuration; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--task",
        choices=["classification", "segmentation", "detection", "features"],
        help="where the source does not say it",
    )
    parser.add_argument("--size", type=parse_size, help="S or HxW, where it is not the model's own")
    parser.add_argument(
        "--fixed-size", action="store_true", help="refuse other image sizes than the model's own"
    )
    parser.add_argument(
        "--features", action="store_true", help="timm: feature maps in place of logits"
    )
    parser.add_argument(
        "--weights", help="torchvision: the published weights whose preprocess counts"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--script", action="store_const", const="script", dest="mode")
    way.add_argument("--trace", action="store_const", const="trace", dest="mode")
    parser.add_argument(
        "--allow-different", action="store_true",
        help="write the file though its answers are not eager Python's",
    )  # fmt: skip
    parser.add_argument("--photo", type=Path, default=PHOTO, help="photo of the reference")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    own = parser.add_argument_group("the user's own code")
    own.add_argument(
        "--input", action="append", default=[], metavar="SHAPE",
        help="example input: 1x3x224x224, or a .npy file; may be repeated",
    )  # fmt: skip
    own.add_argument(
        "--layout", choices=["batch", "list"], default="batch",
        help="list: forward takes a list of images (3, H, W), which --input names",
    )  # fmt: skip
    own.add_argument("--kind", help="output.kind of torchvit.json, where its form does not tell")
    own.add_argument(
        "--leaf", action="append", default=[],
        help="place in the answer that counts, such as out.logits; may be repeated",
    )  # fmt: skip
    own.add_argument(
        "--preprocess",
        help='imagenet (default), half, none, or a JSON file with torchvit.json\'s "preprocess"',
    )
    return parser


def settle_preprocess(result: Result) -> None:
    """Photos come out at a size that the file takes."""
    source = result.source
    rule = source.preprocess["resize"]
    cropped = source.preprocess["crop"]["rule"] != "none"
    if source.layout == "list" or cropped or rule["rule"] not in LOOSE_RULES:
        return
    if not result.dynamic:
        source.preprocess["resize"] = {
            "rule": "exact", "size": list(source.size), "max_size": 0, "multiple_of": 0,
        }  # fmt: skip
        source.notes.append(
            "photos are stretched to {}x{}: other sizes do not work".format(*source.size)
        )
        source.processor = None
        return
    if result.multiple_of > 1 and int(rule["multiple_of"]) % result.multiple_of:
        rule["multiple_of"] = result.multiple_of


def reference_calls(result: Result, photo: Path) -> list[tuple[Any, ...]]:
    """The calls of the reference: a photo, and noise of the smallest sizes that work."""
    source = result.source
    if source.inputs:
        return [("forward", *source.inputs[0])]
    if source.layout == "list":
        data = photo_bytes(160 if "mask" in source.thresholds else 240, photo)
        tensor, _ = modelfile.preprocess.load_tensor(data, source.preprocess)
        crop = tensor[:, 10:150, 20:210].contiguous()
        calls = [("forward", data), ("forward", [crop, crop.flip(2)[:, :, :150].contiguous()])]
        alive = [c for c in calls if finds_something(result, c)]
        if not alive:
            raise SystemExit(
                f"{source.architecture}: finds nothing on {photo.name}: give --photo FILE with "
                "something that it knows"
            )
        return alive
    data = photo_bytes(256, photo)
    if source.methods:
        vit = SimpleNamespace(**source.tokens, num_prefix_tokens=source.tokens["prefix"])
        return vit_calls(vit, source.size, result.dynamic, data)
    good = [c for c in result.chosen.cases if c.good] or result.chosen.cases[:1]
    ones = sorted((c for c in good if c.batch == 1), key=lambda c: c.height * c.width)
    many = sorted((c for c in good if c.batch > 1), key=lambda c: c.height * c.width * c.batch)
    calls = [("forward", modelfile.noise([1, 3, ones[0].height, ones[0].width], 1))]
    calls.append(("forward", data))
    if many:
        best = many[0]
        calls.append(("forward", modelfile.noise([best.batch, 3, best.height, best.width], 2)))
    return calls


def finds_something(result: Result, call: tuple[Any, ...]) -> bool:
    """Whether a detector's answer holds anything."""
    value = call[1]
    if isinstance(value, bytes):
        tensor, _ = modelfile.preprocess.load_tensor(value, result.source.preprocess)
        value = [tensor]
    answer = modelfile.flatten(modelfile.run(result.chosen.loaded, "forward", [value], 0))
    return any(a.size and np.any(a != 0) for a in answer.values())


def describe(result: Result, args: argparse.Namespace) -> dict[str, Any]:
    """torchvit.json, without the reference."""
    source = result.source
    metadata: dict[str, Any] = {
        "task": source.task,
        "architecture": source.architecture,
        "input": {
            "size": list(source.size),
            "multiple_of": result.multiple_of,
            "dynamic": result.dynamic,
            "channel_order": "RGB",
            "layout": source.layout,
        },
        "preprocess": source.preprocess,
    }
    if source.tokens:
        metadata["tokens"] = source.tokens
    metadata["output"] = {"kind": source.kind}
    if source.leaves:
        metadata["output"]["leaves"] = source.leaves
    labels = read_labels(args, len(source.labels), source.labels)
    if labels:
        metadata["labels"] = labels
    if source.task == "segmentation" and labels == sources.label_set("voc"):
        metadata["palette"] = palette(len(labels))
    if source.thresholds:
        metadata["thresholds"] = source.thresholds
    return metadata


def versions() -> dict[str, str]:
    """The versions of the libraries that a model may come from."""
    found = {}
    for name in ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch"):
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def export(args: argparse.Namespace) -> dict[str, Any]:
    """Exports a source; returns the report."""
    source = sources.load(args.source, args)
    result = check(source, args.mode, args.allow_different)
    source = result.source
    result.preprocess = check_preprocess(source, PHOTO)
    settle_preprocess(result)
    calls = reference_calls(result, args.photo)
    report = {"source": args.source, **result.describe(), "versions": versions()}
    try:
        metadata = modelfile.write(
            result.chosen.module,
            args.out,
            describe(result, args),
            calls,
            {EXPORT: json.dumps(report, indent=1, ensure_ascii=False)},
        )
    except ValueError as error:
        raise SystemExit(f"{args.source}: {sources.first_line(error)}") from None
    report["file"] = str(args.out)
    report["bytes"] = args.out.stat().st_size
    report["kind"] = source.kind
    report["calls"] = len(metadata["reference"]["calls"])
    if not args.json:
        sources.tell(args.source, result.lines())
    return report


def main() -> None:
    argv = sys.argv[1:]
    if argv and ":" in argv[0] and not argv[0].startswith("-"):
        args = source_parser().parse_args(argv)
        torch.set_num_threads(args.threads)
        report = export(args)
        if args.json:
            print(json.dumps(report, ensure_ascii=False))
            return
        megabytes = report["bytes"] / 1e6
        print(
            f"{args.out}: {report['architecture']}, {megabytes:.1f} MB, {report['calls']} "
            f"reference calls, at most {report['largest']:.3g} from eager Python"
        )
        return

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="export.py SOURCE|COMMAND [options] --out FILE",
        epilog="Options of SOURCE:\n\n" + source_parser().format_help(),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    metadata = args.run(args)
    size = args.out.stat().st_size / 1e6
    calls = len(metadata["reference"]["calls"])
    print(f"{args.out}: {metadata['architecture']}, {size:.1f} MB, {calls} reference calls")


if __name__ == "__main__":
    main()
