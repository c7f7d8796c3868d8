"""The writers of model files and the reference models' sub-commands of export.py.

``write_vit``, ``write_head`` and ``write_detector`` describe a model and write its file;
``add_commands`` adds the sub-commands vit, segmentation, head and detection to a parser.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

import modelfile
from models.segmentation import SegmentationHead, VisionTransformerForSegmentation
from models.timm_wrapper import TimmVisionTransformer
from models.vision_transformer import VisionTransformer
from models.weights import load_checkpoint, seed_weights

ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "testdata" / "images" / "astronaut.jpg"
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def palette(count: int) -> list[list[int]]:
    """Pascal VOC's colours: class 0 is black, the others differ in every bit."""
    colours = []
    for index in range(count):
        colour, value = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((value >> channel) & 1) << bit
            value >>= 3
        colours.append(colour)
    return colours


def photo_bytes(size: int, path: Path = PHOTO, quality: int = 85) -> bytes:
    """A photo as a small JPEG with its shorter side at size, for the reference."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        scale = size / min(image.size)
        shape = (round(image.width * scale), round(image.height * scale))
        stream = io.BytesIO()
        image.resize(shape, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def describe_tokens(model: nn.Module) -> dict[str, Any]:
    """The "tokens" part of torchvit.json."""
    return {
        "patch_size": [int(v) for v in model.patch_size],
        "prefix": int(model.num_prefix_tokens),
        "num_heads": int(getattr(model, "num_heads", 0)),
        "depth": int(getattr(model, "depth", 0)),
        "embed_dim": int(model.embed_dim),
    }


def preprocess_spec(
    size: tuple[int, int],
    mean: list[float],
    std: list[float],
    interpolation: str = "bicubic",
    rule: str = "exact",
    resize: list[int] | None = None,
    multiple_of: int = 0,
    crop: bool = False,
) -> dict[str, Any]:
    """The "preprocess" part of torchvit.json."""
    return {
        "backend": "pil",
        "resize": {
            "rule": rule,
            "size": resize if resize is not None else list(size),
            "max_size": 0,
            "multiple_of": multiple_of,
        },
        "interpolation": interpolation,
        "antialias": True,
        "crop": {"rule": "center", "size": list(size)} if crop else {"rule": "none", "size": []},
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "normalize": "torchvision",
    }


def timm_preprocess(model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """timm's evaluation transform as data: its mean, std, interpolation and crop rule."""
    from timm.data import resolve_data_config

    config = resolve_data_config(model=model)
    crop_pct = float(config["crop_pct"])
    if config["crop_mode"] == "squash" or size[0] != size[1]:
        target = [int(size[0] / crop_pct), int(size[1] / crop_pct)]
        rule = "exact"
    elif config["crop_mode"] == "center":
        target, rule = [int(size[0] / crop_pct)], "shortest_edge"
    else:
        raise SystemExit(f"timm's crop mode {config['crop_mode']!r} is not supported")
    return preprocess_spec(
        size,
        list(config["mean"]),
        list(config["std"]),
        interpolation=str(config["interpolation"]),
        rule=rule,
        resize=target,
        crop=True,
    )


def imagenet_labels(count: int) -> list[str]:
    """The names of ImageNet-1k's classes (first synonym), or class numbers."""
    if count == 1000:
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(i).split(",")[0] for i in range(count)]
    return [f"class {i}" for i in range(count)]


def vit_calls(
    model: nn.Module, size: tuple[int, int], dynamic: bool, photo: bytes | None = None
) -> list[tuple[Any, ...]]:
    """The reference calls of a ViT: logits from a photo, and every method on a tensor."""
    patch, depth = [int(v) for v in model.patch_size], int(model.depth)
    shape = [1, 3, size[0], size[1]]
    if dynamic:  # small and not square
        shape = [1, 3, 4 * patch[0], 6 * patch[1]]
    x = modelfile.noise(shape, 1)
    photo = photo_bytes(256) if photo is None else photo
    # Logits of a photo may be too large for some segmentation files; its tokens then serve.
    calls: list[tuple[Any, ...]] = [
        ("forward", x),
        ("forward", photo),
        ("forward_features", photo),
        ("forward_with_attention", x),
        ("forward_blocks", x, [0, depth - 1]),
        ("attention", x, 0),
    ]
    if dynamic:
        calls.append(("forward", modelfile.noise([2, 3, 5 * patch[0], 3 * patch[1]], 2)))
    return calls


def write_vit(
    model: nn.Module,
    out: Path,
    architecture: str,
    task: str,
    size: tuple[int, int],
    dynamic: bool,
    spec: dict[str, Any],
    labels: list[str],
    photo: bytes | None = None,
) -> dict[str, Any]:
    """Writes a classification or segmentation file."""
    metadata: dict[str, Any] = {
        "task": task,
        "architecture": architecture,
        "input": {
            "size": list(size),
            "multiple_of": int(model.patch_size[0]),
            "dynamic": dynamic,
            "channel_order": "RGB",
        },
        "preprocess": spec,
        "tokens": describe_tokens(model),
        "output": {"kind": "logits" if task == "classification" else "segmentation_logits"},
        "labels": labels,
    }
    if task == "segmentation":
        metadata["palette"] = palette(len(labels))
    return modelfile.write(model, out, metadata, vit_calls(model, size, dynamic, photo))


def write_head(
    model: SegmentationHead, out: Path, size: tuple[int, int], labels: list[str]
) -> dict[str, Any]:
    """Writes a segmentation head for a ViT with the same embed_dim and patch size."""
    ph, pw = model.patch_size
    count = model.num_prefix_tokens
    metadata = {
        "task": "segmentation_head",
        "architecture": "segmentation_head_1x1",
        "input": {
            "size": list(size),
            "multiple_of": int(ph),
            "dynamic": True,
            "channel_order": "RGB",
        },
        "preprocess": preprocess_spec(size, [0.0] * 3, [1.0] * 3, rule="none", resize=[]),
        "tokens": describe_tokens(model),
        "output": {"kind": "head_logits"},
        "labels": labels,
        "palette": palette(len(labels)),
    }
    metadata["preprocess"]["normalize"] = "none"
    small = modelfile.noise([1, count + 4 * 6, model.embed_dim], 3)
    batch = modelfile.noise([2, count + 3 * 5, model.embed_dim], 4)
    calls = [("forward", small, 4 * ph, 6 * pw), ("forward", batch, 3 * ph, 5 * pw)]
    return modelfile.write(model, out, metadata, calls)


def write_detector(
    model: nn.Module,
    out: Path,
    architecture: str,
    labels: list[str],
    score: float,
    photo: bytes | None = None,
) -> dict[str, Any]:
    """Writes a scripted torchvision detector over a ViT; labels[0] is the background."""
    vit = model.backbone.vit
    size = [int(model.transform.min_size[-1]), int(model.transform.max_size)]
    spec = preprocess_spec((0, 0), [0.0] * 3, [1.0] * 3, rule="none", resize=[])
    spec["normalize"] = "none"
    spec["interpolation"] = "bilinear"
    metadata = {
        "task": "detection",
        "architecture": architecture,
        "input": {"size": size, "multiple_of": 1, "dynamic": True, "channel_order": "RGB"},
        "preprocess": spec,
        "tokens": describe_tokens(vit),
        "output": {"kind": "detections"},
        "labels": labels,
        "palette": palette(len(labels)),
        "thresholds": {"score": score},
    }
    photo = photo_bytes(240) if photo is None else photo
    tensor, _ = modelfile.preprocess.load_tensor(photo, spec)
    # Multiples of 1/255 are kept exact, and the crop keeps the archive small.
    crop = tensor[:, 20:180, 30:222].contiguous()
    calls = [("forward", photo), ("forward", [crop, crop.flip(2)[:, :, :160].contiguous()])]
    return modelfile.write(model, out, metadata, calls)


def apply_weights(model: nn.Module, args: argparse.Namespace) -> None:
    """Seeds all weights, then loads --checkpoint over them."""
    seed_weights(model, args.seed)
    if args.checkpoint is None:
        return
    target = model.vit if isinstance(model, TimmVisionTransformer) else model
    report = load_checkpoint(target, args.checkpoint)
    for line in report.lines():
        print(f"{args.checkpoint}: {line}", file=sys.stderr)
    if (report.missing or report.mismatched) and not args.allow_missing:
        raise SystemExit(
            f"{args.checkpoint}: {len(report.missing)} parameters missing and "
            f"{len(report.mismatched)} of the wrong shape; --allow-missing keeps seeded values"
        )
    heads = [n for n in report.missing if ".".join(n.split(".")[:-1]) in ("head", "head_dist")]
    if heads:
        print(f"{args.checkpoint}: the classifier is seeded, not trained", file=sys.stderr)
    for name, parameter in target.named_parameters():
        if name.startswith("head") and parameter.ndim >= 2 and not bool(parameter.any()):
            raise SystemExit(f"{args.checkpoint}: {name} is all zeros, its logits mean nothing")


def read_labels(args: argparse.Namespace, count: int, default: list[str]) -> list[str]:
    """Labels from --labels (a text file, one a line, or a JSON list), else the default."""
    if args.labels is None:
        return default
    text = Path(args.labels).read_text(encoding="utf-8")
    labels = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    if len(labels) != count:
        raise SystemExit(f"{args.labels}: got {len(labels)} labels, want {count}")
    return [str(label) for label in labels]


def parse_size(text: str) -> tuple[int, int]:
    """224 or 192x256 (height x width)."""
    parts = [int(v) for v in text.lower().split("x")]
    if len(parts) > 2:
        raise argparse.ArgumentTypeError(f"{text}: want SIZE or HEIGHTxWIDTH")
    return (parts[0], parts[-1])


def vit_kwargs(args: argparse.Namespace) -> dict[str, Any]:
    """Constructor arguments of the reference ViT."""
    return {
        "img_size": args.img_size,
        "patch_size": args.patch_size,
        "embed_dim": args.embed_dim,
        "depth": args.depth,
        "num_heads": args.num_heads,
        "mlp_ratio": args.mlp_ratio,
    }


def command_vit(args: argparse.Namespace) -> dict[str, Any]:
    """export.py vit"""
    model = VisionTransformer(num_classes=args.num_classes, **vit_kwargs(args))
    apply_weights(model, args)
    size = args.img_size
    short = int(size[0] / args.crop_pct)
    rule, target = ("shortest_edge", [short]) if size[0] == size[1] else ("exact", list(size))
    spec = preprocess_spec(
        size, args.mean, args.std, rule=rule, resize=target, crop=rule == "shortest_edge"
    )
    labels = read_labels(args, args.num_classes, imagenet_labels(args.num_classes))
    return write_vit(
        model, args.out, "vision_transformer", "classification", size, True, spec, labels
    )


def command_segmentation(args: argparse.Namespace) -> dict[str, Any]:
    """export.py segmentation"""
    model = VisionTransformerForSegmentation(args.num_classes, **vit_kwargs(args))
    apply_weights(model, args)
    patch = args.patch_size[0]
    spec = preprocess_spec(
        args.img_size,
        args.mean,
        args.std,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[min(args.img_size)],
        multiple_of=patch,
    )
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    name = "vision_transformer_for_segmentation"
    return write_vit(model, args.out, name, "segmentation", args.img_size, True, spec, labels)


def command_head(args: argparse.Namespace) -> dict[str, Any]:
    """export.py head"""
    model = SegmentationHead(args.embed_dim, args.num_classes, args.patch_size, args.prefix)
    seed_weights(model, args.seed)
    if args.checkpoint is not None:
        from models.weights import read_checkpoint

        state = read_checkpoint(args.checkpoint)
        names = {n.replace("segmentation_head.", "conv."): v for n, v in state.items()}
        try:
            model.load_state_dict({k: v for k, v in names.items() if k.startswith("conv.")})
        except RuntimeError as error:
            raise SystemExit(f"{args.checkpoint}: {error}") from None
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    return write_head(model, args.out, args.img_size, labels)


def command_detection(args: argparse.Namespace) -> dict[str, Any]:
    """export.py detection"""
    from models.detection import vit_faster_rcnn

    vit = VisionTransformer(num_classes=0, **vit_kwargs(args))
    model = vit_faster_rcnn(
        vit,
        args.num_classes,
        out_channels=args.out_channels,
        min_size=args.min_size,
        max_size=args.max_size,
        image_mean=tuple(args.mean),
        image_std=tuple(args.std),
    )
    apply_weights(model, args)
    default = ["__background__"] + [f"class {i}" for i in range(1, args.num_classes)]
    labels = read_labels(args, args.num_classes, default)
    return write_detector(model, args.out, "vit_faster_rcnn", labels, args.score)


def add_common(parser: argparse.ArgumentParser, classes: int | None) -> None:
    """Flags that every sub-command has."""
    parser.add_argument("--out", type=Path, required=True, help="the model file to write")
    parser.add_argument("--checkpoint", type=Path, help="local .pt, .pth or .safetensors")
    parser.add_argument(
        "--allow-missing", action="store_true", help="seed what the checkpoint lacks"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    parser.add_argument(
        "--num-classes", type=int, default=classes, help=f"classes (default {classes or 'own'})"
    )
    parser.add_argument("--labels", help="labels: text file with one a line, or a JSON list")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads the reference is made with (default 1)"
    )


def add_vit(parser: argparse.ArgumentParser) -> None:
    """Flags of the reference ViT; the defaults are ViT-Ti."""
    parser.add_argument("--img-size", type=parse_size, default=(224, 224), help="S or HxW")
    parser.add_argument("--patch-size", type=parse_size, default=(16, 16), help="P or HxW")
    parser.add_argument("--embed-dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--mlp-ratio", type=float, default=4.0)
    parser.add_argument("--mean", type=float, nargs=3, default=IMAGENET_MEAN)
    parser.add_argument("--std", type=float, nargs=3, default=IMAGENET_STD)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the reference models' sub-commands to export.py's."""
    sub = commands.add_parser("vit", help="the reference VisionTransformer")
    add_vit(sub)
    sub.add_argument("--crop-pct", type=float, default=0.875, help="centre crop (default 0.875)")
    add_common(sub, 1000)
    sub.set_defaults(run=command_vit)

    sub = commands.add_parser("segmentation", help="the reference VisionTransformerForSegmentation")
    add_vit(sub)
    add_common(sub, 21)
    sub.set_defaults(run=command_segmentation)

    sub = commands.add_parser("head", help="a 1x1 segmentation head, for CustomSegmentationModel")
    sub.add_argument("--img-size", type=parse_size, default=(224, 224), help="S or HxW")
    sub.add_argument("--patch-size", type=parse_size, default=(16, 16), help="P or HxW")
    sub.add_argument("--embed-dim", type=int, default=192)
    sub.add_argument("--prefix", type=int, default=1, help="prefix tokens of the ViT (default 1)")
    add_common(sub, 21)
    sub.set_defaults(run=command_head)

    sub = commands.add_parser("detection", help="torchvision's Faster R-CNN over the reference ViT")
    add_vit(sub)
    sub.add_argument("--min-size", type=int, default=320, help="shorter side (default 320)")
    sub.add_argument("--max-size", type=int, default=640, help="longer side (default 640)")
    sub.add_argument("--out-channels", type=int, default=128, help="pyramid channels")
    sub.add_argument("--score", type=float, default=0.5, help="score threshold (default 0.5)")
    add_common(sub, 91)
    sub.set_defaults(run=command_detection)
