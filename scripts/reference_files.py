"""The writers of model files and the reference models' sub-commands of export.py.

``write_vit``, ``write_class_map``, ``write_head``, ``write_detector``, ``write_yolo`` and
``write_set_prediction`` describe a model, write its file and return its metadata (only that
where the path is None); ``add_commands`` adds the
sub-commands vit, segmentation, head and detection to a parser.
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
from models.segmentation import (
    ClassMapModel,
    CustomSegmentationModel,
    VisionTransformerForSegmentation,
)
from models.segmentation_heads import HEADS, segmentation_head
from models.timm_wrapper import TimmVisionTransformer, create_timm_vit
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
    patch, depth, prefix = list(model.patch_size), int(model.depth), model.num_prefix_tokens
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
        ("attentions", x, [0, depth - 1]),
        ("forward_norm", modelfile.noise([1, prefix + 2 * 3, int(model.embed_dim)], 5)),
    ]
    if dynamic:
        calls.append(("forward", modelfile.noise([2, 3, 5 * patch[0], 3 * patch[1]], 2)))
    return calls


def write_vit(
    model: nn.Module,
    out: Path | None,
    architecture: str,
    task: str,
    size: tuple[int, int],
    dynamic: bool,
    spec: dict[str, Any],
    labels: list[str],
    photo: bytes | None = None,
    mask: float | None = None,
    training: dict[str, Any] | None = None,
    reference_bytes: int = modelfile.REFERENCE_BYTES,
) -> dict[str, Any]:
    """Writes a classification or segmentation file; mask is the threshold of a binary one."""
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
    if mask is not None:
        metadata["thresholds"] = {"mask": mask}
    if training is not None:
        metadata["training"] = training
    calls = vit_calls(model, size, dynamic, photo)
    return modelfile.write(model, out, metadata, calls, reference_bytes=reference_bytes)


def write_class_map(
    model: ClassMapModel,
    out: Path | None,
    architecture: str,
    size: tuple[int, int],
    spec: dict[str, Any],
    labels: list[str],
) -> dict[str, Any]:
    """Writes a segmentation file whose answer is a class map; it has forward only."""
    patch = model.model.patch_size
    metadata = {
        "task": "segmentation",
        "architecture": architecture,
        "input": {
            "size": list(size),
            "multiple_of": int(patch[0]),
            "dynamic": True,
            "channel_order": "RGB",
        },
        "preprocess": spec,
        "output": {"kind": "class_map"},
        "labels": labels,
        "palette": palette(len(labels)),
    }
    x = modelfile.noise([1, 3, 4 * int(patch[0]), 6 * int(patch[1])], 1)
    return modelfile.write(model, out, metadata, [("forward", x), ("forward", photo_bytes(256))])


def write_head(
    model: nn.Module,
    out: Path | None,
    size: tuple[int, int],
    labels: list[str],
    name: str = "linear",
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a segmentation head for a ViT with the same embed_dim and patch size; name is
    its name in segmentation_heads.HEADS."""
    ph, pw = model.patch_size
    count, blocks = model.num_prefix_tokens, list(getattr(model, "input_blocks", []))
    metadata: dict[str, Any] = {
        "task": "segmentation_head",
        "architecture": f"segmentation_head_{'1x1' if name == 'linear' else name}",
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
    if blocks:
        metadata["input"]["blocks"] = blocks
    metadata["preprocess"]["normalize"] = "none"
    calls = []
    for batch, h, w, seed in ((1, 4, 6, 3), (2, 3, 5, 4)):
        shape = [batch, count + h * w, model.embed_dim]
        if blocks:
            features: Any = [modelfile.noise(shape, seed * 10 + i) for i in range(len(blocks))]
        else:
            features = modelfile.noise(shape, seed)
        calls.append(("forward", features, h * ph, w * pw))
    if training is not None:
        metadata["training"] = training
    return modelfile.write(model, out, metadata, calls)


def write_detector(
    model: nn.Module,
    out: Path | None,
    architecture: str,
    labels: list[str],
    score: float,
    photo: bytes | None = None,
    training: dict[str, Any] | None = None,
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
    if training is not None:
        metadata["training"] = training
    return modelfile.write(model, out, metadata, calls)


def write_yolo(
    model: nn.Module,
    out: Path | None,
    kind: str,
    size: tuple[int, int],
    labels: list[str],
    score: float,
    iou: float = 0.45,
    mean: list[float] = IMAGENET_MEAN,
    std: list[float] = IMAGENET_STD,
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a YOLO-style detector; kind is yolo_grid, yolo or yolo_end2end. The photo is
    letterboxed to size."""
    output: dict[str, Any] = {"kind": kind}
    if kind == "yolo_grid":
        output["anchors"] = [[[float(v) for v in a] for a in level] for level in model.anchors]
    thresholds = {"score": score} if kind == "yolo_end2end" else {"score": score, "iou": iou}
    spec = preprocess_spec(size, mean, std, interpolation="bilinear", rule="letterbox")
    metadata = {
        "task": "detection",
        "architecture": f"vit_{kind}",
        "input": {
            "size": list(size),
            "multiple_of": 2 * int(model.vit.patch_size[0]),
            "dynamic": True,
            "channel_order": "RGB",
        },
        "preprocess": spec,
        "tokens": describe_tokens(model.vit),
        "output": output,
        "labels": labels,
        "palette": palette(len(labels)),
        "thresholds": thresholds,
    }
    x = modelfile.noise([2, 3, size[0], size[1]], 1)
    if training is not None:
        metadata["training"] = training
    return modelfile.write(model, out, metadata, [("forward", photo_bytes(160)), ("forward", x)])


def write_set_prediction(
    model: nn.Module,
    out: Path | None,
    architecture: str,
    kind: str,
    size: tuple[int, int],
    spec: dict[str, Any],
    labels: list[str],
    score: float,
) -> dict[str, Any]:
    """Writes a set-prediction detector; kind is set_prediction or set_prediction_sigmoid."""
    ph, pw = (int(v) for v in model.patch_size)
    metadata = {
        "task": "detection",
        "architecture": architecture,
        "input": {
            "size": list(size),
            "multiple_of": ph,
            "dynamic": True,
            "channel_order": "RGB",
        },
        "preprocess": spec,
        "tokens": describe_tokens(model),
        "output": {"kind": kind},
        "labels": labels,
        "palette": palette(len(labels)),
        "thresholds": {"score": score},
    }
    x = modelfile.noise([2, 3, 4 * ph, 6 * pw], 1)
    return modelfile.write(model, out, metadata, [("forward", photo_bytes(160)), ("forward", x)])


def sharpen(model: nn.Module, factor: float, background: float = 0.0) -> None:
    """Multiplies the weights of a seeded detector's classes and boxes, so that it finds some
    objects of several classes in any photo; background is the bias of Faster R-CNN's label 0."""
    for name, parameter in model.named_parameters():
        if name.endswith(
            ("cls_score.weight", "cls_logits.weight", "class_head.layers.4.weight")
        ) or ("predict." in name and name.endswith("weight")):
            parameter.data.mul_(factor)
        elif name.endswith("box_head.layers.4.weight"):
            parameter.data.mul_(3)
        elif name.endswith("cls_score.bias"):
            parameter.data[0] = background


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
    """Labels from --labels (a text file, one a line, or a JSON list), else the default. A
    count of 0 is not known."""
    if args.labels is None:
        return default
    text = Path(args.labels).read_text(encoding="utf-8")
    labels = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    if count and len(labels) != count:
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


def head_options(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs of --head-arg: whole numbers, true and false, or lists of numbers."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, sep, text = pair.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not sep or not isinstance(value, (bool, int, list)):
            raise SystemExit(f"--head-arg {pair}: want NAME=VALUE, such as channels=128")
        options[name] = value
    return options


def command_segmentation(args: argparse.Namespace) -> dict[str, Any]:
    """export.py segmentation"""
    options = head_options(args.head_arg)
    size, name = args.img_size, "vision_transformer_for_segmentation"
    try:
        if args.timm:
            vit = create_timm_vit(args.timm, img_size=list(size), num_classes=0)
            head = segmentation_head(
                args.head,
                vit.embed_dim,
                args.num_classes,
                (vit.patch_size[0], vit.patch_size[1]),
                vit.num_prefix_tokens,
                vit.depth,
                **options,
            )
            model: nn.Module = CustomSegmentationModel(vit, head)
            name = args.timm
        else:
            model = VisionTransformerForSegmentation(
                args.num_classes, **vit_kwargs(args), head=args.head, head_options=options
            )
    except (TypeError, ValueError) as error:
        raise SystemExit(f"--head {args.head}: {error}") from None
    name += "" if args.head == "linear" else f"_{args.head}"
    apply_weights(model, args)
    spec = preprocess_spec(
        size,
        args.mean,
        args.std,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[min(size)],
        multiple_of=int(model.patch_size[0]),
    )
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    if args.class_map:
        return write_class_map(ClassMapModel(model), args.out, name, size, spec, labels)
    mask = 0.5 if args.num_classes == 1 else None
    return write_vit(model, args.out, name, "segmentation", size, True, spec, labels, None, mask)


def command_head(args: argparse.Namespace) -> dict[str, Any]:
    """export.py head"""
    try:
        model = segmentation_head(
            args.head,
            args.embed_dim,
            args.num_classes,
            args.patch_size,
            args.prefix,
            args.depth,
            **head_options(args.head_arg),
        )
    except (TypeError, ValueError) as error:
        raise SystemExit(f"--head {args.head}: {error}") from None
    seed_weights(model, args.seed)
    if args.checkpoint is not None:
        from models.weights import read_checkpoint

        # A head by itself, or the whole model that it is a part of.
        state = read_checkpoint(args.checkpoint)
        part = {
            k.removeprefix("segmentation_head."): v
            for k, v in state.items()
            if k.startswith("segmentation_head.")
        }
        try:
            model.load_state_dict(part or {k.removeprefix("conv."): v for k, v in state.items()})
        except RuntimeError as error:
            raise SystemExit(f"{args.checkpoint}: {error}") from None
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    return write_head(model, args.out, args.img_size, labels, args.head)


def command_detection(args: argparse.Namespace) -> dict[str, Any]:
    """export.py detection"""
    build = {"yolo": command_yolo, "yolos": command_yolos}.get(args.arch, command_torchvision)
    return build(args)


def command_torchvision(args: argparse.Namespace) -> dict[str, Any]:
    """export.py detection --arch faster_rcnn, mask_rcnn or retinanet"""
    from models.detection import vit_faster_rcnn, vit_mask_rcnn, vit_retinanet

    build = {
        "faster_rcnn": vit_faster_rcnn,
        "mask_rcnn": vit_mask_rcnn,
        "retinanet": vit_retinanet,
    }[args.arch]
    model = build(
        VisionTransformer(num_classes=0, **vit_kwargs(args)),
        args.num_classes,
        out_channels=args.out_channels,
        min_size=args.min_size,
        max_size=args.max_size,
        image_mean=tuple(args.mean),
        image_std=tuple(args.std),
    )
    apply_detector_weights(model, args)
    default = ["__background__"] + [f"class {i}" for i in range(1, args.num_classes)]
    labels = read_labels(args, args.num_classes, default)
    return write_detector(model, args.out, f"vit_{args.arch}", labels, args.score)


def command_yolo(args: argparse.Namespace) -> dict[str, Any]:
    """export.py detection --arch yolo"""
    from models.yolo import YOLO, scaled_anchors

    size, kind = args.img_size, args.yolo_output
    if size[0] != size[1] or size[0] % (2 * args.patch_size[0]):
        raise SystemExit(f"--img-size: want a square multiple of {2 * args.patch_size[0]}")
    vit = VisionTransformer(num_classes=0, **vit_kwargs(args))
    model = YOLO[kind](vit, args.num_classes, scaled_anchors(size[0]), args.out_channels)
    apply_detector_weights(model, args)
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    name = {"grid": "yolo_grid", "decoded": "yolo", "end2end": "yolo_end2end"}[kind]
    return write_yolo(model, args.out, name, size, labels, args.score, args.iou)


def command_yolos(args: argparse.Namespace) -> dict[str, Any]:
    """export.py detection --arch yolos"""
    from models.yolos import VisionTransformerForDetection

    model = VisionTransformerForDetection(
        args.num_classes,
        **vit_kwargs(args),
        num_detection_tokens=args.queries,
        no_object=not args.sigmoid,
    )
    apply_detector_weights(model, args)
    labels = read_labels(args, args.num_classes, [f"class {i}" for i in range(args.num_classes)])
    short = min(args.img_size)
    spec = preprocess_spec(
        args.img_size, args.mean, args.std, interpolation="bilinear", rule="yolos", resize=[short]
    )
    # As YOLOS: the longer side is at most 1333/800 of the shorter.
    spec["resize"].update(max_size=short * 1333 // 800, multiple_of=args.patch_size[0])
    kind = "set_prediction_sigmoid" if args.sigmoid else "set_prediction"
    name = "vision_transformer_for_detection"
    return write_set_prediction(
        model, args.out, name, kind, args.img_size, spec, labels, args.score
    )


def apply_detector_weights(model: nn.Module, args: argparse.Namespace) -> None:
    """apply_weights; without a checkpoint, classes far enough apart to find something."""
    apply_weights(model, args)
    if args.checkpoint is None:
        sharpen(model, 8)


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


def add_head(parser: argparse.ArgumentParser) -> None:
    """Flags of a segmentation head."""
    parser.add_argument(
        "--head", default="linear", choices=list(HEADS),
        help="linear: a 1x1 convolution (default); transposed: one transposed convolution; "
        "progressive: several; fcn: torchvision's FCNHead; unet: a U-Net's decoder over four "
        "blocks; setr_pup: SETR's; mask_transformer: Segmenter's",
    )  # fmt: skip
    parser.add_argument(
        "--head-arg", action="append", default=[], metavar="NAME=VALUE",
        help="argument of the head's class in models/segmentation_heads.py, such as "
        "channels=128 or upsample=false (logits smaller than the input); may be repeated",
    )  # fmt: skip


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the reference models' sub-commands to export.py's."""
    sub = commands.add_parser("vit", help="the reference VisionTransformer")
    add_vit(sub)
    sub.add_argument("--crop-pct", type=float, default=0.875, help="centre crop (default 0.875)")
    add_common(sub, 1000)
    sub.set_defaults(run=command_vit)

    sub = commands.add_parser(
        "segmentation",
        help="the reference VisionTransformerForSegmentation, or a timm ViT, with a head",
    )
    add_vit(sub)
    add_head(sub)
    sub.add_argument(
        "--timm", metavar="NAME",
        help="a timm ViT in place of the reference ViT (registers, distillation token); its own "
        "patch size, width and depth count",
    )  # fmt: skip
    sub.add_argument(
        "--class-map", action="store_true", help="the file gives class ids in place of logits"
    )
    add_common(sub, 21)
    sub.set_defaults(run=command_segmentation)

    sub = commands.add_parser("head", help="a segmentation head, for CustomSegmentationModel")
    sub.add_argument("--img-size", type=parse_size, default=(224, 224), help="S or HxW")
    sub.add_argument("--patch-size", type=parse_size, default=(16, 16), help="P or HxW")
    sub.add_argument("--embed-dim", type=int, default=192)
    sub.add_argument(
        "--depth", type=int, default=12, help="blocks of the ViT, for a head that takes several"
    )
    sub.add_argument(
        "--prefix", type=int, default=1,
        help="prefix tokens of the ViT: class, distillation, registers (default 1)",
    )  # fmt: skip
    add_head(sub)
    add_common(sub, 21)
    sub.set_defaults(run=command_head)

    sub = commands.add_parser("detection", help="a detector over the reference ViT")
    sub.add_argument(
        "--arch", default="faster_rcnn",
        choices=["faster_rcnn", "mask_rcnn", "retinanet", "yolo", "yolos"],
        help="torchvision's Faster R-CNN (default), Mask R-CNN or RetinaNet over a feature "
        "pyramid; a YOLO-style head on it; or set prediction with detection tokens, as YOLOS",
    )  # fmt: skip
    add_vit(sub)
    sub.add_argument("--min-size", type=int, default=320, help="torchvision's shorter side (320)")
    sub.add_argument("--max-size", type=int, default=640, help="torchvision's longer side (640)")
    sub.add_argument("--out-channels", type=int, default=128, help="pyramid channels")
    sub.add_argument("--score", type=float, default=0.5, help="score threshold (default 0.5)")
    sub.add_argument("--iou", type=float, default=0.45, help="yolo: NMS threshold (default 0.45)")
    sub.add_argument(
        "--yolo-output", default="grid", choices=["grid", "decoded", "end2end"],
        help="yolo: raw grids (default), (B, 4+C, N) decoded, or (B, 100, 6) best boxes",
    )  # fmt: skip
    sub.add_argument("--queries", type=int, default=100, help="yolos: detection tokens (100)")
    sub.add_argument(
        "--sigmoid", action="store_true", help="yolos: classes each for itself, as RT-DETR"
    )
    add_common(sub, 91)
    sub.set_defaults(run=command_detection)
