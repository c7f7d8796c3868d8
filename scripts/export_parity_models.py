"""Writes the models that the parity tests compare, with seeded weights.

    .venv/bin/python scripts/export_parity_models.py --out testdata/generated

Nothing is done when the folder already holds what these scripts, the installed versions
and this processor make (torch is not even imported then). --force writes all again.

    vit_reference.pt           VisionTransformer, 4 blocks, patch 16, any size
    vit_tiny_patch16_224.pt    timm, as published
    deit_tiny_distilled_patch16_224.pt   timm, two prefix tokens
    vit_little_patch16_reg4_gap_256.pt   timm, 4 registers and no class token, mean pooling
    vit_small_patch14_dinov2.pt          timm, patch 14, layer scale, 4 blocks, 224x224
    vit_small_patch14_reg4_dinov2.pt     timm, patch 14, class token and 4 registers
    segmentation.pt            VisionTransformerForSegmentation, 21 classes
    segmentation_head.pt       1x1 head for vit_reference.pt (CustomSegmentationModel)
    detection.pt               Faster R-CNN over a ViT, 8 classes

models.json lists them with task, sizes and what each photo gives. The script fails unless
each of the four photos gives at least 3 classes in segmentation (both ways), and at least
10 boxes with 10 distinct scores and 3 labels in detection.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata" / "generated"
PHOTOS = ["astronaut.jpg", "chelsea.png", "coffee.jpg", "rocket.jpg"]
SOURCES = ["export_parity_models.py", "reference_files.py", "modelfile.py", "preprocess.py"]


def fingerprint() -> str:
    """A hash of all that the files depend on."""
    digest = hashlib.sha256()
    scripts = ROOT / "scripts"
    for path in [scripts / name for name in SOURCES] + sorted((scripts / "models").glob("*.py")):
        digest.update(path.read_bytes())
    for name in PHOTOS:
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


def photo_tensors(spec: dict[str, Any]) -> dict[str, Any]:
    """Each photo as its model's input."""
    import preprocess

    folder = ROOT / "testdata" / "images"
    return {name: preprocess.load_tensor(folder / name, spec) for name in PHOTOS}


def check_segmentation(out: Path, vit: str, head: str | None) -> dict[str, int]:
    """Counts the classes that each photo gives; fails below 3."""
    import parity

    model = parity.Model(out / vit)
    head_model = parity.Model(out / head) if head else None
    found: dict[str, int] = {}
    for name, (tensor, size) in photo_tensors(model.spec).items():
        x = tensor[None].clone()
        if head_model is None:
            logits = parity.modelfile.run(model.module, "forward", [x], 0)
        else:
            logits, _ = parity.composed(model, head_model, x, 0)
        classes = parity.class_map(logits, *size)
        counts = [int(v) for v in sorted((classes == c).sum() for c in range(logits.shape[1]))]
        found[name] = sum(1 for v in counts if v >= 50)
        if found[name] < 3:
            raise SystemExit(f"{vit} on {name}: {found[name]} classes of 50 pixels, want 3")
    return found


def detections(module: Any, spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a detector finds on each photo."""
    import modelfile

    found: dict[str, dict[str, Any]] = {}
    for name, (tensor, _) in photo_tensors(spec).items():
        _, answer = modelfile.run(module, "forward", [[tensor]], 0)
        scores, labels = answer[0]["scores"], answer[0]["labels"]
        found[name] = {
            "boxes": len(scores),
            "scores": len(scores.unique()),
            "labels": len(labels.unique()),
            "best": round(float(scores.max()), 3) if len(scores) else 0.0,
        }
    return found


def enough(found: dict[str, dict[str, Any]]) -> bool:
    """At least 10 boxes, 10 distinct scores and 3 labels on each photo."""
    return all(f["boxes"] >= 10 and f["scores"] >= 10 and f["labels"] >= 3 for f in found.values())


def make_detector(out: Path) -> dict[str, dict[str, Any]]:
    """Writes a seeded detector that finds enough on each photo."""
    import torch

    import modelfile
    import reference_files
    from models.detection import vit_faster_rcnn
    from models.vision_transformer import VisionTransformer
    from models.weights import seed_weights

    labels = ["__background__"] + [f"thing {i}" for i in range(1, 8)]
    for seed in range(20):
        vit = VisionTransformer(num_classes=0, depth=4)
        model = vit_faster_rcnn(
            vit, len(labels), out_channels=64, representation_size=256, rpn_top_n=200
        )
        seed_weights(model, seed)
        with torch.no_grad():
            # Sharper class scores and proposals of different shape.
            model.roi_heads.box_predictor.cls_score.weight.mul_(3)
            model.roi_heads.box_predictor.cls_score.bias[0] = -1
        model.eval()
        spec = reference_files.preprocess_spec((0, 0), [0.0] * 3, [1.0] * 3, rule="none", resize=[])
        spec["normalize"] = "none"
        found = detections(torch.jit.script(model), spec)
        if not enough(found):
            print(f"detector seed {seed}: {found}", file=sys.stderr)
            continue
        reference_files.write_detector(model, out / "detection.pt", "vit_faster_rcnn", labels, 0.3)
        module, metadata, _ = modelfile.load(out / "detection.pt")
        found = detections(module, metadata["preprocess"])
        if not enough(found):
            raise SystemExit(f"the finished detector finds too little: {found}")
        return found
    raise SystemExit("no seed gives a detector that finds enough on each photo")


def make(out: Path) -> dict[str, Any]:
    """Writes all models; returns what is known of each."""
    import torch

    import reference_files
    from models.segmentation import SegmentationHead, VisionTransformerForSegmentation
    from models.timm_wrapper import create_timm_vit
    from models.vision_transformer import VisionTransformer, to_pair
    from models.weights import seed_weights

    torch.set_num_threads(1)
    facts: dict[str, Any] = {}

    def note(name: str, metadata: dict[str, Any], **more: Any) -> None:
        facts[name] = {
            "task": metadata["task"],
            "architecture": metadata["architecture"],
            "size": metadata["input"]["size"],
            "dynamic": metadata["input"]["dynamic"],
            "tokens": metadata["tokens"],
            **more,
        }
        print(f"{name}: {(out / name).stat().st_size / 1e6:.1f} MB", file=sys.stderr)

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
        vit, out / "vit_reference.pt", "vision_transformer", "classification",
        (224, 224), True, spec, names,
    )  # fmt: skip
    note("vit_reference.pt", metadata)

    timm_models: list[tuple[str, dict[str, Any]]] = [
        ("vit_tiny_patch16_224", {"dynamic_img_size": False}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("vit_little_patch16_reg4_gap_256", {"depth": 4}),
        ("vit_small_patch14_dinov2", {"depth": 4, "img_size": 224, "num_classes": 100}),
        ("vit_small_patch14_reg4_dinov2", {"depth": 4, "img_size": 224, "num_classes": 100}),
    ]
    for seed, (name, kwargs) in enumerate(timm_models, 2):
        model = create_timm_vit(name, **kwargs)
        seed_weights(model, seed)
        size = to_pair(model.vit.patch_embed.img_size)
        labels = reference_files.imagenet_labels(model.num_classes)
        spec = reference_files.timm_preprocess(model.vit, size)
        metadata = reference_files.write_vit(
            model, out / f"{name}.pt", name, "classification", size,
            bool(model.vit.dynamic_img_size), spec, labels,
        )  # fmt: skip
        note(f"{name}.pt", metadata)

    labels = [f"class {i}" for i in range(21)]
    seg = VisionTransformerForSegmentation(21, depth=4)
    seed_weights(seg, 8)
    spec = reference_files.preprocess_spec(
        (224, 224),
        reference_files.IMAGENET_MEAN,
        reference_files.IMAGENET_STD,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[224],
        multiple_of=16,
    )
    metadata = reference_files.write_vit(
        seg, out / "segmentation.pt", "vision_transformer_for_segmentation", "segmentation",
        (224, 224), True, spec, labels,
    )  # fmt: skip
    note("segmentation.pt", metadata, classes=check_segmentation(out, "segmentation.pt", None))

    head = SegmentationHead(192, 21, 16, 1)
    seed_weights(head, 9)
    metadata = reference_files.write_head(head, out / "segmentation_head.pt", (224, 224), labels)
    found = check_segmentation(out, "vit_reference.pt", "segmentation_head.pt")
    note("segmentation_head.pt", metadata, vit="vit_reference.pt", classes=found)

    found_boxes = make_detector(out)
    detector = {"task": "detection", "architecture": "vit_faster_rcnn", "found": found_boxes}
    facts["detection.pt"] = detector
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="write all models again")
    args = parser.parse_args()
    key = fingerprint()
    if not args.force and current(args.out, key):
        print(f"{args.out}: up to date")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "models.json").unlink(missing_ok=True)
    models = make(args.out)
    part = args.out / "models.json.part"
    part.write_text(json.dumps({"key": key, "models": models}, indent=1))
    shutil.move(part, args.out / "models.json")
    print(f"{args.out}: {len(models)} models written")


if __name__ == "__main__":
    main()
