"""Writes folders as timm, transformers and ultralytics leave them, and Python's classes of photos.

Each folder holds model.pt, a bare trace, and the configuration files that the library itself
saves. Printed is JSON: for each folder and photo the five best labels and scores, with the
library's own preprocess and torch.jit.load of the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import timm
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

import torch
from torch import Tensor, nn

Prepare = Callable[[Image.Image], Tensor]
Scores = Callable[[Tensor], Tensor]
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}


class Logits(nn.Module):
    """The logits of a model of transformers, which gives an object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, return_dict=False)[0]


class Pair(Logits):
    """All of a model's answer as a dict, which a trace gives with strict=False."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": self.model(x, return_dict=False)[0], "pixels": x.mean((2, 3))}


def names(n: int, what: str) -> dict[int, str]:
    return {i: f"{what} {i}" for i in range(n)}


def of_transformers(folder: Path, kind: str) -> tuple[Prepare, Scores]:
    labels = names(7, kind)
    if kind == "vit":
        config = transformers.ViTConfig(
            image_size=64, patch_size=16, id2label=labels, **SIZES
        )
        model: nn.Module = transformers.ViTForImageClassification(config)
        processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    else:
        config = transformers.DeiTConfig(
            image_size=48,
            patch_size=8,
            id2label=labels,
            problem_type="multi_label_classification",
            **SIZES,
        )
        model = transformers.DeiTForImageClassification(config)
        processor = transformers.DeiTImageProcessor(
            size={"height": 56, "width": 56}, crop_size={"height": 48, "width": 48}
        )
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    wrapper = Logits(model) if kind == "vit" else Pair(model)
    side = config.image_size
    with torch.no_grad():
        traced = torch.jit.trace(wrapper, torch.rand(1, 3, side, side), strict=False)
    traced.save(folder / "model.pt")
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    scores: Scores = (lambda x: x.softmax(-1)) if kind == "vit" else torch.sigmoid
    return lambda image: processor(images=[image], return_tensors="pt")[
        "pixel_values"
    ], scores


def of_timm(folder: Path) -> tuple[Prepare, Scores]:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, embed_dim=48, depth=2, num_classes=5
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.pretrained_cfg.update(input_size=(3, 64, 64), num_classes=5)
    model.pretrained_cfg["label_names"] = list(names(5, "timm").values())
    save_for_hf(model, folder, safe_serialization=True)
    with torch.no_grad():
        torch.jit.trace(model, torch.rand(1, 3, 64, 64)).save(folder / "model.pt")
    transform = create_transform(
        **resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    )
    return lambda image: transform(image)[None], lambda x: x.softmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, help="photos to classify")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder for the folders"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    answer: dict[str, list[list[dict[str, object]]]] = {}
    for name in ("vit", "deit", "timm"):
        folder = args.out / name
        folder.mkdir()
        prepare, scores = (
            of_timm(folder) if name == "timm" else of_transformers(folder, name)
        )
        model = torch.jit.load(folder / "model.pt")
        answer[name] = []
        for photo in args.photos:
            x = prepare(Image.open(photo).convert("RGB"))
            with torch.inference_mode():
                out = model(torch.empty(x.shape).copy_(x))
            logits = out["logits"] if isinstance(out, dict) else out
            values, index = scores(logits)[0].sort(descending=True, stable=True)
            answer[name].append(
                [
                    {"label": f"{name} {i}", "score": v}
                    for v, i in zip(
                        values[:5].tolist(), index[:5].tolist(), strict=True
                    )
                ]
            )
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
