"""Makes small ViT files and computes what PyTorch and timm give, for the tests of vit.

reference.py features --out DIR --threads 2
    writes DIR/NAME.pt for a few kinds of ViT, DIR/*traced*.pt, DIR/decoder.pt and
    DIR/features.npz with inputs and timm's forward_intermediates of the eager models
reference.py attention --out FILE --threads 2 --models MODEL... --photos PHOTO...
    writes the class token's attention, means, rollouts, masks and other queries
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any, List

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
warnings.simplefilter("ignore")

import modelfile  # noqa: E402
import preprocess  # noqa: E402

SMALL = {"num_classes": 7, "embed_dim": 96, "num_heads": 3}
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 4, "img_size": 64},
    "deit_tiny_distilled_patch16_224": {"depth": 3, "img_size": 64},
    "vit_little_patch16_reg4_gap_256": {"depth": 3, "img_size": 64},
    "vit_small_patch14_reg4_dinov2": {"depth": 3, "img_size": 56},
}
GRIDS = [(1, 4, 4), (3, 4, 4), (2, 3, 7), (1, 6, 2)]  # batch, rows, columns


class Decoder(nn.Module):
    """A small decoder of a user's own: a list of maps to logits at four times their size."""

    def __init__(self, dim: int, maps: int) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(dim * maps, 24, 1)
        self.up = nn.ConvTranspose2d(24, 5, 4, stride=4)

    def forward(self, maps: List[Tensor]) -> Tensor:
        return self.up(torch.relu(self.fuse(torch.cat(maps, dim=1))))


class Backbone(nn.Module):
    """What a user traces: a model that gives its features."""

    def __init__(self, vit: nn.Module, form: str) -> None:
        super().__init__()
        self.vit, self.form = vit, form

    def forward(self, x: Tensor) -> Any:
        if self.form == "single":
            return self.vit.forward_features(x)
        maps = self.vit.forward_intermediates(
            x, indices=[0, 1, 2], norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return tuple(maps) if self.form == "tuple" else list(maps)


def describe(name: str, task: str, kind: str, size: int, vit: nn.Module) -> str:
    """torchvit.json for a ViT."""
    patch = [int(v) for v in vit.patch_embed.patch_size]
    return json.dumps(
        {
            "format": 1,
            "task": task,
            "architecture": name,
            "input": {"size": [size, size], "multiple_of": patch[0], "dynamic": True},
            "preprocess": {
                "backend": "pil",
                "resize": {"rule": "shortest_edge", "size": [size + 8]},
                "interpolation": "bicubic",
                "crop": {"rule": "center", "size": [size, size]},
                "normalize": "torchvision",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "tokens": {
                "patch_size": patch,
                "prefix": int(vit.num_prefix_tokens),
                "num_heads": int(vit.blocks[0].attn.num_heads),
                "depth": len(vit.blocks),
                "embed_dim": int(vit.embed_dim),
            },
            "output": {"kind": kind},
        }
    )


def features(out: Path) -> None:
    """Writes the files and features.npz."""
    from models.timm_wrapper import create_timm_vit

    arrays: dict[str, np.ndarray] = {}
    for seed, (name, kwargs) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = create_timm_vit(name, **SMALL, **kwargs)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.05)
        size = int(kwargs["img_size"])
        extra = describe(name, "classification", "logits", size, model.vit)
        torch.jit.script(model).save(
            str(out / f"{name}.pt"), _extra_files={modelfile.METADATA: extra}
        )
        patch = model.patch_size[0]
        for g, (batch, rows, columns) in enumerate(GRIDS):
            x = modelfile.noise([batch, 3, rows * patch, columns * patch], seed * 10 + g)
            arrays[f"{name}.{g}.x"] = x.numpy()
            for norm in (False, True):
                for form in ("NCHW", "NLC"):
                    maps = modelfile.run(
                        Call(model.vit, [0, 1, 2], norm, form), "forward", [x], warmup=1
                    )
                    for i, y in enumerate(maps):
                        key = f"{name}.{g}.{form}.{'norm' if norm else 'plain'}.{i}"
                        arrays[key] = y.contiguous().numpy()
        if seed == 3:
            continue
        for form in ("single", "tuple", "list"):
            backbone = Backbone(model.vit, form).eval()
            x = torch.from_numpy(arrays[f"{name}.0.x"])
            with torch.no_grad():
                traced = torch.jit.trace(backbone, x, strict=False)
            extra = describe(name, "features", "features", size, model.vit)
            path = out / f"{name}.traced.{form}.pt"
            traced.save(str(path), _extra_files={modelfile.METADATA: extra})
            loaded = torch.jit.load(str(path))
            for i, y in enumerate(as_list(modelfile.run(loaded, "forward", [x]))):
                arrays[f"{name}.traced.{form}.{i}"] = y.contiguous().numpy()
    torch.manual_seed(9)
    name = "vit_tiny_patch16_224"
    decoder = Decoder(96, 3).eval()
    torch.jit.script(decoder).save(str(out / "decoder.pt"))
    for g in range(len(GRIDS)):
        maps = [torch.from_numpy(arrays[f"{name}.{g}.NCHW.plain.{i}"]) for i in (0, 1, 2)]
        loaded = torch.jit.load(str(out / "decoder.pt"))
        y = modelfile.run(loaded, "forward", [[modelfile.aligned(m) for m in maps]])
        arrays[f"decoder.{g}"] = y.numpy()
    np.savez(out / "features.npz", **arrays)


class Call(nn.Module):
    """timm's forward_intermediates as a module's forward."""

    def __init__(self, vit: nn.Module, indices: list[int], norm: bool, form: str) -> None:
        super().__init__()
        self.vit, self.indices, self.norm, self.form = vit, indices, norm, form

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.vit.forward_intermediates(
            x, indices=self.indices, norm=self.norm, output_fmt=self.form, intermediates_only=True
        )


def as_list(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def rollout(attentions: list[Tensor], fusion: str, discard: float) -> Tensor:
    """Abnar and Zuidema's rollout of one photo, (1, heads, N, N) each, to (N, N)."""
    size = attentions[0].shape[-1]
    result = torch.eye(size)
    for attention in attentions:
        if fusion == "mean":
            fused = attention.mean(dim=1)
        elif fusion == "max":
            fused = attention.max(dim=1)[0]
        else:
            fused = attention.min(dim=1)[0]
        flat = fused.reshape(1, -1).clone()
        _, lowest = flat.topk(int(flat.shape[1] * discard), dim=-1, largest=False)
        flat[0, lowest[lowest != 0]] = 0
        a = flat.reshape(1, size, size)
        a = 0.5 * a + 0.5 * torch.eye(size)
        a = a / a.sum(dim=-1, keepdim=True)
        result = torch.matmul(a, result)
    return result[0]


def threshold(attentions: Tensor, mass: float) -> Tensor:
    """DINO's mask of (heads, patches)."""
    val, idx = torch.sort(attentions)
    val /= torch.sum(val, dim=1, keepdim=True)
    cumval = torch.cumsum(val, dim=1)
    kept = cumval > (1 - mass)
    idx2 = torch.argsort(idx)
    for head in range(attentions.shape[0]):
        kept[head] = kept[head][idx2[head]]
    return kept


def attention(out: Path, models: list[Path], photos: list[Path]) -> None:
    """Writes the attention of each model on each photo, one at a time."""
    arrays: dict[str, np.ndarray] = {}
    for m, path in enumerate(models):
        module, metadata, _ = modelfile.load(path)
        spec, tokens = metadata["preprocess"], metadata["tokens"]
        prefix, depth = tokens["prefix"], tokens["depth"]
        for p, photo in enumerate(photos):
            x = modelfile.aligned(preprocess.load_tensor(photo, spec)[0][None])
            columns = x.shape[3] // tokens["patch_size"][1]
            maps = [modelfile.run(module, "attention", [x, i], 0) for i in range(depth)]
            key = f"{m}.{p}"
            with torch.inference_mode():
                last = maps[-1]
                heads = last[0, :, 0, prefix:]
                middle = maps[depth // 2][0, :, 0, prefix:]
                patch = last[0, :, prefix + 2 * columns + 1, prefix:]
                arrays[f"{key}.heads"] = heads.contiguous().numpy()
                arrays[f"{key}.middle"] = middle.contiguous().numpy()
                arrays[f"{key}.token"] = last[0, :, prefix - 1, prefix:].contiguous().numpy()
                arrays[f"{key}.patch"] = patch.contiguous().numpy()
                arrays[f"{key}.mean"] = last.mean(dim=1)[0, 0, prefix:].contiguous().numpy()
                arrays[f"{key}.mask"] = threshold(heads.contiguous(), 0.6).numpy()
                arrays[f"{key}.mask_mean"] = threshold(heads.mean(dim=0)[None], 0.35).numpy()
                for fusion, discard in (("mean", 0.0), ("max", 0.9), ("min", 0.3), ("mean", 0.5)):
                    rolled = rollout(maps, fusion, discard)
                    arrays[f"{key}.rollout.{fusion}.{discard}"] = rolled[0, prefix:].numpy()
                arrays[f"{key}.rollout.patch"] = rollout(maps, "mean", 0.0)[
                    prefix + 2 * columns + 1, prefix:
                ].numpy()
                some = rollout(maps[1:3], "mean", 0.0)[0, prefix:]
                arrays[f"{key}.rollout.some"] = some.numpy()
                arrays[f"{key}.mask_rollout"] = threshold(rolled[:1, prefix:], 0.6).numpy()
    np.savez(out, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("features", "attention"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--threads", type=int, default=1)
        if name == "attention":
            command.add_argument("--models", type=Path, nargs="+", required=True)
            command.add_argument("--photos", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.command == "features":
        features(args.out)
    else:
        attention(args.out, args.models, args.photos)


if __name__ == "__main__":
    main()
