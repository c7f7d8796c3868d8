"""Writes the models that the parity tests compare, with seeded weights.

    .venv/bin/python scripts/export_parity_models.py --out testdata/generated

Nothing is done when the folder already holds what these scripts, the installed versions
and this processor make (torch is not even imported then). --force writes all again,
--only NAME some of them.

    vit_reference.pt           VisionTransformer, 4 blocks, patch 16, any size
    vit_tiny_patch16_224.pt    timm, as published
    deit_tiny_distilled_patch16_224.pt   timm, two prefix tokens
    vit_little_patch16_reg4_gap_256.pt   timm, 4 registers and no class token, mean pooling
    vit_small_patch14_dinov2.pt          timm, patch 14, layer scale, 4 blocks, 224x224
    vit_small_patch14_reg4_dinov2.pt     timm, patch 14, class token and 4 registers
    vit_distilled_small.pt     timm's distilled DeiT, two prefix tokens, small, for heads
    vit_registers_small.pt     timm's DINOv2, patch 14, five prefix tokens, small, for heads

    segmentation.pt            VisionTransformerForSegmentation, 21 classes
    segmentation_NAME.pt       a small one with each of the other heads, 9 classes; of those,
                               fcn gives logits for each patch, unet at a quarter of the size
    segmentation_registers.pt  a small timm ViT, patch 14, class token and 4 registers, unet
    segmentation_class_map.pt  class ids in place of logits
    segmentation_binary.pt     one channel

    segmentation_head.pt       1x1 head for vit_reference.pt (CustomSegmentationModel)
    segmentation_head_NAME.pt  each of the other heads, for one of the ViTs above

    detection.pt               Faster R-CNN over a ViT, 8 classes
    detection_KIND.pt          small ones: mask_rcnn, retinanet, yolo_grid, yolo,
                               yolo_end2end, set_prediction, set_prediction_sigmoid

models.json lists them with task, sizes and what each photo gives. The script fails unless
each photo gives at least 3 classes in segmentation (2 in a binary one), and at least 10
boxes with 10 distinct scores and 3 labels in detection.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata" / "generated"
PHOTOS = ["astronaut.jpg", "chelsea.png", "coffee.jpg", "rocket.jpg"]
SHAPES = ["portrait.jpg", "panorama.jpg", "tiny.png", "grey.jpg", "palette.png", "cmyk.jpg"]
SOURCES = [
    "export_parity_models.py", "reference_files.py", "modelfile.py", "parity.py",
    "postprocess.py", "preprocess.py",
]  # fmt: skip

#: The head files that are not linear, with the ViT that each is for.
HEADS = {
    "transposed": "vit_distilled_small",
    "progressive": "vit_distilled_small",
    "fcn": "vit_registers_small",
    "unet": "vit_registers_small",
    "setr_pup": "vit_distilled_small",
    "mask_transformer": "vit_registers_small",
}
#: Arguments of the heads' classes that keep the files small.
HEAD_OPTIONS: dict[str, dict[str, Any]] = {
    "progressive": {"channels": 64},
    "unet": {"channels": [16, 32, 48, 64]},
    "setr_pup": {"channels": 32},
    "mask_transformer": {"width": 96},
}
#: The small ViT of most files.
SMALL: dict[str, Any] = {"embed_dim": 96, "depth": 4, "num_heads": 3}
SEEDS = 40


def fingerprint() -> str:
    """A hash of all that the files depend on."""
    digest = hashlib.sha256()
    scripts = ROOT / "scripts"
    for path in [scripts / name for name in SOURCES] + sorted((scripts / "models").glob("*.py")):
        digest.update(path.read_bytes())
    for name in PHOTOS + SHAPES:
        digest.update((ROOT / "testdata" / "images" / name).read_bytes())
    for package in ("torch", "torchvision", "timm", "pillow", "numpy"):
        digest.update(importlib.metadata.version(package).encode())
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("vendor_id", "flags")):
                digest.update(line.encode())
                if line.startswith("flags"):
                    break
    except OSError:
        pass
    return digest.hexdigest()


def current(out: Path, key: str) -> bool:
    """Whether the folder already holds everything."""
    try:
        index = json.loads((out / "models.json").read_text())
    except (OSError, ValueError):
        return False
    return index.get("key") == key and all((out / name).is_file() for name in index["models"])


def check_segmentation(
    model: Any, head: Any | None, photos: list[str], wanted: int = 3
) -> dict[str, int]:
    """Counts the classes of at least 50 pixels that each photo gives; empty where one gives
    fewer than wanted. model and head are parity.Model."""
    import parity
    import postprocess
    import preprocess

    spec = parity.whole_photo(model) if head else model.spec
    found: dict[str, int] = {}
    for name in photos:
        tensor, size = preprocess.load_tensor(ROOT / "testdata" / "images" / name, spec)
        x = tensor[None].clone()
        if head is None:
            answer = parity.modelfile.run(model.module, "forward", [x], 0)
        else:
            answer, _ = parity.composed(model, head, x, 0)
        classes = postprocess.class_map(answer, (head or model).metadata, *size)
        found[name] = sum(int((classes == c).sum() >= 50) for c in range(int(classes.max()) + 1))
        if found[name] < wanted:
            return {}
    return found


def check_detection(model: Any, photos: list[str]) -> dict[str, dict[str, Any]]:
    """What a detector finds on each photo; empty where that is not enough. model is a
    parity.Model."""
    import modelfile
    import postprocess
    import preprocess

    listed = modelfile.takes_list(model.metadata)
    found: dict[str, dict[str, Any]] = {}
    for name in photos:
        tensor, size = preprocess.load_tensor(ROOT / "testdata" / "images" / name, model.spec)
        x = [tensor] if listed else modelfile.aligned(tensor[None])
        answer = modelfile.run(model.module, "forward", [x], 0)
        if listed and isinstance(answer, list):  # an eager model of torchvision
            answer = ({}, answer)
        seen = (int(tensor.shape[1]), int(tensor.shape[2]))
        (one,) = postprocess.detections(answer, model.metadata, [size], [seen])
        scores, labels = one["scores"], one["labels"]
        facts = {
            "boxes": len(scores),
            "scores": len(scores.unique()),
            "labels": len(labels.unique()),
            "best": round(float(scores.max()), 3) if len(scores) else 0.0,
        }
        if facts["boxes"] < 10 or facts["scores"] < 10 or facts["labels"] < 3:
            return {}
        if "masks" in one:
            facts["masks"] = sum(int(mask.sum()) >= 5 for mask in one["masks"])
            if facts["masks"] < 3:
                return {}
        found[name] = facts
    return found


class Export:
    """Writes models into a folder and keeps what is known of each."""

    def __init__(self, out: Path, only: list[str]) -> None:
        self.out, self.only = out, only
        self.facts: dict[str, Any] = {}

    def wants(self, name: str) -> bool:
        """Whether the file is to be written."""
        return not self.only or name.removesuffix(".pt") in self.only

    def note(self, name: str, metadata: dict[str, Any], **more: Any) -> None:
        """Keeps the facts of a file."""
        self.facts[name] = {
            "task": metadata["task"],
            "architecture": metadata["architecture"],
            "kind": metadata["output"]["kind"],
            "size": metadata["input"]["size"],
            "dynamic": metadata["input"]["dynamic"],
            "tokens": metadata.get("tokens"),
            **more,
        }
        size = (self.out / name).stat().st_size / 1e6
        print(f"{name}: {size:.1f} MB", file=sys.stderr)

    def search(
        self,
        name: str,
        seed_model: Callable[[int], Any],
        write: Callable[[Any, Path], dict[str, Any]],
        check: Callable[[Any], dict[str, Any]],
        **more: Any,
    ) -> None:
        """Writes the model of the first seed that passes the check, which the finished file
        passes too."""
        import parity

        if not self.wants(name):
            return
        for seed in range(SEEDS):
            model = seed_model(seed).eval()
            if not check(parity.Model.of(model, write(model, None))):
                continue
            metadata = write(model, self.out / name)
            found = check(parity.Model(self.out / name))
            if not found:  # a scripted detector resizes some photos by another pixel
                (self.out / name).unlink()
                continue
            self.note(name, metadata, seed=seed, found=found, **more)
            return
        raise SystemExit(f"{name}: none of {SEEDS} seeds gives enough on each photo")


def vits(export: Export) -> None:
    """The ViTs for classification."""
    import reference_files
    from models.timm_wrapper import create_timm_vit
    from models.vision_transformer import VisionTransformer, to_pair
    from models.weights import seed_weights

    if export.wants("vit_reference.pt"):
        vit = VisionTransformer(num_classes=100, depth=4)
        seed_weights(vit, 1)
        spec = reference_files.preprocess_spec(
            (224, 224),
            reference_files.IMAGENET_MEAN,
            reference_files.IMAGENET_STD,
            rule="shortest_edge",
            resize=[256],
            crop=True,
        )
        names = reference_files.imagenet_labels(1000)[:100]
        metadata = reference_files.write_vit(
            vit, export.out / "vit_reference.pt", "vision_transformer", "classification",
            (224, 224), True, spec, names,
        )  # fmt: skip
        export.note("vit_reference.pt", metadata)

    fitted: dict[str, Any] = {"depth": 4, "img_size": 224, "num_classes": 100}
    models: list[tuple[str, str, dict[str, Any]]] = [
        ("", "vit_tiny_patch16_224", {"dynamic_img_size": False}),
        ("", "deit_tiny_distilled_patch16_224", {}),
        ("", "vit_little_patch16_reg4_gap_256", {"depth": 4}),
        ("", "vit_small_patch14_dinov2", fitted),
        ("", "vit_small_patch14_reg4_dinov2", fitted),
        ("vit_distilled_small", "deit_tiny_distilled_patch16_224",
         {**SMALL, "img_size": 128, "num_classes": 100}),
        ("vit_registers_small", "vit_small_patch14_reg4_dinov2",
         {**SMALL, "img_size": 112, "num_classes": 100}),
    ]  # fmt: skip
    for seed, (file, name, kwargs) in enumerate(models, 2):
        file = file or name
        if not export.wants(f"{file}.pt"):
            continue
        model = create_timm_vit(name, **kwargs)
        seed_weights(model, seed)
        size = to_pair(model.vit.patch_embed.img_size)
        labels = reference_files.imagenet_labels(model.num_classes)
        spec = reference_files.timm_preprocess(model.vit, size)
        metadata = reference_files.write_vit(
            model, export.out / f"{file}.pt", name, "classification", size,
            bool(model.vit.dynamic_img_size), spec, labels,
        )  # fmt: skip
        export.note(f"{file}.pt", metadata)


def whole_spec(size: int, patch: int = 16) -> dict[str, Any]:
    """The preprocess of a segmentation model: the whole photo, shorter side at size."""
    import reference_files

    return reference_files.preprocess_spec(
        (size, size),
        reference_files.IMAGENET_MEAN,
        reference_files.IMAGENET_STD,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[size],
        multiple_of=patch,
    )


def segmentation(export: Export) -> None:
    """Whole segmentation models: the first large, the others small."""
    import reference_files
    from models.segmentation import (
        ClassMapModel,
        CustomSegmentationModel,
        VisionTransformerForSegmentation,
    )
    from models.segmentation_heads import segmentation_head
    from models.timm_wrapper import create_timm_vit
    from models.weights import seed_weights

    def add(
        name: str,
        make: Callable[[], nn.Module],
        size: int,
        classes: int,
        patch: int = 16,
        mask: float | None = None,
    ) -> None:
        labels = [f"class {i}" for i in range(classes)]
        spec, sides = whole_spec(size, patch), (size, size)

        def seeded(seed: int) -> nn.Module:
            model = make()
            seed_weights(model, 8 + seed)
            return model

        def write(model: nn.Module, out: Path | None) -> dict[str, Any]:
            if isinstance(model, ClassMapModel):
                return reference_files.write_class_map(model, out, name, sides, spec, labels)
            return reference_files.write_vit(
                model, out, name, "segmentation", sides, True, spec, labels, None, mask
            )

        photos = PHOTOS + SHAPES if name == "segmentation" else SHAPES
        wanted = 2 if classes == 1 else 3
        export.search(
            f"{name}.pt", seeded, write, lambda m: check_segmentation(m, None, photos, wanted)
        )

    def small(head: str, classes: int = 9, **options: Any) -> nn.Module:
        return VisionTransformerForSegmentation(
            classes,
            **SMALL,
            img_size=128,
            head=head,
            head_options={**HEAD_OPTIONS.get(head, {}), **options},
        )

    def registers() -> nn.Module:
        vit = create_timm_vit("vit_small_patch14_reg4_dinov2", img_size=112, num_classes=0, **SMALL)
        options = HEAD_OPTIONS["unet"]
        head = segmentation_head(
            "unet", vit.embed_dim, 9, 14, vit.num_prefix_tokens, vit.depth, **options
        )
        return CustomSegmentationModel(vit, head)

    add("segmentation", lambda: VisionTransformerForSegmentation(21, depth=4), 224, 21)
    reduced: dict[str, dict[str, Any]] = {"fcn": {"upsample": False}, "unet": {"upsample": False}}
    for head in HEADS:
        options = reduced.get(head, {})
        add(f"segmentation_{head}", functools.partial(small, head, **options), 128, 9)
    add("segmentation_registers", registers, 112, 9, 14)
    add("segmentation_class_map", lambda: ClassMapModel(small("linear")), 128, 9)
    add("segmentation_binary", lambda: small("linear", 1, upsample=False), 128, 1, mask=0.5)


def heads(export: Export) -> None:
    """Segmentation heads in files of their own, each for a ViT that is there."""
    import modelfile
    import parity
    import reference_files
    from models.segmentation_heads import segmentation_head
    from models.weights import seed_weights

    def add(name: str, head: str, vit: str, classes: int) -> None:
        if not export.wants(name):
            return
        _, described, _ = modelfile.load(export.out / f"{vit}.pt")
        tokens, size = described["tokens"], tuple(described["input"]["size"])
        labels = [f"class {i}" for i in range(classes)]
        model = parity.Model(export.out / f"{vit}.pt")

        def seeded(seed: int) -> nn.Module:
            made = segmentation_head(
                head, tokens["embed_dim"], classes, tuple(tokens["patch_size"]),
                tokens["prefix"], tokens["depth"], **HEAD_OPTIONS.get(head, {}),
            )  # fmt: skip
            seed_weights(made, 9 + seed)
            return made

        photos = PHOTOS + SHAPES if head == "linear" else SHAPES
        export.search(
            name,
            seeded,
            lambda m, out: reference_files.write_head(m, out, size, labels, head),
            lambda m: check_segmentation(model, m, photos),
            vit=f"{vit}.pt",
        )

    add("segmentation_head.pt", "linear", "vit_reference", 21)
    for head, vit in HEADS.items():
        add(f"segmentation_head_{head}.pt", head, vit, 9)


def detection(export: Export) -> None:
    """Detectors: the first large, the others small."""
    import reference_files
    from models.detection import vit_faster_rcnn, vit_mask_rcnn, vit_retinanet
    from models.vision_transformer import VisionTransformer
    from models.weights import seed_weights
    from models.yolo import YOLO, scaled_anchors
    from models.yolos import VisionTransformerForDetection

    background = ["__background__"] + [f"thing {i}" for i in range(1, 8)]
    things = [f"thing {i}" for i in range(8)]
    side = (160, 160)

    def small() -> VisionTransformer:
        return VisionTransformer(num_classes=0, img_size=side, **SMALL)

    def add(
        name: str,
        make: Callable[[], nn.Module],
        sharp: float,
        write: Callable[[nn.Module, Path | None], dict[str, Any]],
        bias: float = 0.0,
    ) -> None:
        def seeded(seed: int) -> nn.Module:
            model = make()
            seed_weights(model, seed)
            reference_files.sharpen(model, sharp, bias)
            return model

        photos = PHOTOS + SHAPES if name == "detection" else SHAPES
        export.search(f"{name}.pt", seeded, write, lambda m: check_detection(m, photos))

    def torchvision(name: str, score: float) -> Callable[[nn.Module, Path | None], dict[str, Any]]:
        return lambda m, out: reference_files.write_detector(m, out, name, background, score)

    def yolo(kind: str, score: float) -> Callable[[nn.Module, Path | None], dict[str, Any]]:
        return lambda m, out: reference_files.write_yolo(m, out, kind, side, things, score)

    def large() -> nn.Module:
        return vit_faster_rcnn(
            VisionTransformer(num_classes=0, depth=4), 8,
            out_channels=64, representation_size=256, rpn_top_n=200,
        )  # fmt: skip

    add("detection", large, 3, torchvision("vit_faster_rcnn", 0.3), -1)
    tiny: dict[str, Any] = {"out_channels": 32, "min_size": 160, "max_size": 320}
    add(
        "detection_mask_rcnn",
        lambda: vit_mask_rcnn(
            small(), 8, representation_size=64, mask_layers=(32, 32), rpn_top_n=100,
            box_detections_per_img=24, **tiny,
        ),
        3,
        torchvision("vit_mask_rcnn", 0.2),
    )  # fmt: skip
    add(
        "detection_retinanet",
        lambda: vit_retinanet(small(), 8, detections_per_img=60, **tiny),
        4,
        torchvision("vit_retinanet", 0.5),
    )
    for name, kind, score in (
        ("grid", "yolo_grid", 0.8),
        ("decoded", "yolo", 0.8),
        ("end2end", "yolo_end2end", 0.85),
    ):
        add(
            f"detection_{kind}",
            functools.partial(lambda n: YOLO[n](small(), 8, scaled_anchors(160), 32), name),
            2,
            yolo(kind, score),
        )
    for kind, score in (("set_prediction", 0.4), ("set_prediction_sigmoid", 0.93)):
        spec = reference_files.preprocess_spec(
            side, reference_files.IMAGENET_MEAN, reference_files.IMAGENET_STD,
            interpolation="bilinear", rule="yolos", resize=[160],
        )  # fmt: skip
        spec["resize"].update(max_size=266, multiple_of=16)
        add(
            f"detection_{kind}",
            functools.partial(
                VisionTransformerForDetection, 8, img_size=side, num_detection_tokens=60,
                no_object=kind == "set_prediction", **SMALL,
            ),
            6,
            functools.partial(
                lambda m, out, kind, score, spec: reference_files.write_set_prediction(
                    m, out, "vision_transformer_for_detection", kind, side, spec, things, score
                ),
                kind=kind, score=score, spec=spec,
            ),
        )  # fmt: skip


def make(out: Path, only: list[str]) -> dict[str, Any]:
    """Writes all models, or those named; returns what is known of each."""
    import torch

    torch.set_num_threads(1)
    export = Export(out, only)
    for part in (vits, segmentation, heads, detection):
        part(export)
    return export.facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="write all models again")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help="write these files only, and leave models.json as it is",
    )  # fmt: skip
    args = parser.parse_args()
    key = fingerprint()
    if args.only:
        args.out.mkdir(parents=True, exist_ok=True)
        facts = make(args.out, [name.removesuffix(".pt") for name in args.only])
        print(json.dumps(facts, indent=1))
        return
    if not args.force and current(args.out, key):
        print(f"{args.out}: up to date")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "models.json").unlink(missing_ok=True)
    models = make(args.out, [])
    part = args.out / "models.json.part"
    part.write_text(json.dumps({"key": key, "models": models}, indent=1))
    shutil.move(part, args.out / "models.json")
    print(f"{args.out}: {len(models)} models written")


if __name__ == "__main__":
    main()
