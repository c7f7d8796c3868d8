"""One training run: its schedule, its log, its checkpoints, and what makes the ViT cheaper to
train."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.vision_transformer import Attention, VisionTransformer, resample_pos_embed

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "testdata" / "generated" / "training"
#: What is in git of the runs that the shipped models come from.
MODELS = ROOT / "testdata" / "models"
LOGS = MODELS / "logs"

#: When the program began.
BEGIN = time.monotonic()

#: The shortest edge of the images that the models see in the end.
SIDE = 128
VIT: dict[str, Any] = {
    "img_size": SIDE,
    "patch_size": 8,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "mlp_ratio": 3,
    "conv_stem": True,
}


@dataclass
class Run:
    """One training run. Batches and everything random are functions of (seed, step) alone,
    so that a run that was stopped goes on to the weights it would have had."""

    name: str
    model: nn.Module
    groups: list[dict[str, Any]]  # AdamW's, each with "scale", its factor on the rate
    rate: float
    warmup: int
    steps: int
    progress: Callable[[int], float]  # step -> 0..1, where the cosine is
    loss: Callable[[int], dict[str, Tensor]]  # step -> the losses, which are added
    check: Callable[[int], dict[str, float]]  # step -> held-out figures
    every: int  # steps between two checks
    seed: int
    clip: float = 1.0


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside the file and renames, so that a killed run leaves the old one. Two runs that
    read the scenes for the first time write the same file at once."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    write(part)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)


def read_log(name: str, shipped: bool = False) -> list[dict[str, Any]]:
    """The lines of a run's log, or of the shipped one; a line cut off by a kill is left out."""
    path = (LOGS if shipped else WORK) / f"{name}.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def finished(name: str, again: bool, seed: int) -> bool:
    """Whether a run has been finished before, which is said."""
    done = (WORK / f"{name}.pth").is_file() and not again
    if done:
        was = seed_of(name)
        if was != seed:
            raise SystemExit(f"{name}: got seed {seed}, and it was trained with {was}: --again?")
        print(f"{name}: done before")
    return done


def seed_of(name: str) -> int:
    """The seed of a finished run."""
    return int(read_log(name)[-1].get("seed", 0))


def train(run: Run, minutes: float, again: bool = False, stop_at: int = 0) -> None:
    """Trains until the run is finished; ends the program after minutes, or at stop_at."""
    checkpoint, done = WORK / f"{run.name}.checkpoint", WORK / f"{run.name}.pth"
    if again:
        checkpoint.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
    run.model.train()
    Attention.forward = explicit_attention
    kinds: list[list[dict[str, Any]]] = [[], []]
    for group in run.groups:
        kinds[group.pop("matrices")].append(group)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(kinds[0], lr=run.rate, betas=(0.9, 0.99), fused=True)
    ]
    if kinds[1]:
        if PRECISION == "float32":
            torch.optim._muon._zeropower_via_newtonschulz = orthogonalized
        optimizers.append(torch.optim.Muon(kinds[1], run.rate, adjust_lr_fn="match_rms_adamw"))
    parameters = [p for group in run.groups for p in group["params"]]
    first, before = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        run.model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        first, before = state["step"], state["seconds"]
        if state.get("seed", 0) != run.seed:
            raise SystemExit(
                f"{run.name}: got seed {run.seed}, the stopped run has another: --again?"
            )
        print(f"{run.name}: goes on at step {first}", flush=True)
    log = [line for line in read_log(run.name) if line["step"] <= first]
    text = "".join(json.dumps(line) + "\n" for line in log)
    write_whole(WORK / f"{run.name}.jsonl", lambda path: path.write_text(text))
    start = saved = time.monotonic()
    seconds = before
    mean: dict[str, float] = {}
    with open(WORK / f"{run.name}.jsonl", "a") as stream:
        for step in range(first, run.steps):
            warm = min(1.0, (step + 1) / run.warmup)
            rate = run.rate * warm * (0.5 + 0.5 * np.cos(np.pi * run.progress(step)))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = float(rate) * group["scale"]
            losses = run.loss(step)
            loss = torch.stack([v for v in losses.values() if v.requires_grad]).sum()
            run.model.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, run.clip)
            for optimizer in optimizers:
                optimizer.step()
            for name, value in {"loss": loss, **losses}.items():
                mean[name] = 0.95 * mean.get(name, value.item()) + 0.05 * value.item()
            count, now = step + 1, time.monotonic()
            seconds = before + now - start
            last = count == run.steps
            if count % 20 == 0 or last:
                line: dict[str, Any] = {"step": count, "seconds": round(seconds, 1)}
                line["rate"] = round(float(rate), 7)
                line |= {name: round(value, 4) for name, value in mean.items()}
                if last:
                    line |= {"seed": run.seed, "precision": PRECISION}
                if count % run.every == 0 or last:
                    with eval_mode(run.model):
                        line |= {k: round(v, 4) for k, v in run.check(count).items()}
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                if count % 100 == 0 or count % run.every == 0 or last:
                    words = [f"{k} {v}" for k, v in line.items() if k != "step"]
                    print(f"{run.name} {count}/{run.steps} {' '.join(words)}", flush=True)
            halt = now - BEGIN > minutes * 60 or count == stop_at
            if now - saved > 60 or last or halt:
                state = {
                    "step": count,
                    "seconds": seconds,
                    "seed": run.seed,
                    "model": run.model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                }
                write_whole(checkpoint, lambda path: torch.save(state, path))  # noqa: B023
                saved = now
            if halt and not last:
                print(f"{run.name}: stopped at step {count}; start again to go on", flush=True)
                raise SystemExit(3)
    write_whole(done, lambda path: torch.save(run.model.state_dict(), path))
    checkpoint.unlink()
    Attention.forward = ATTENTION


class eval_mode:
    """Evaluation mode without gradients, for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.model.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        self.model.train()


def parameter_groups(model: nn.Module, decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups with layer-wise decay of the rate: the heads have 1, the ViT's last block
    decay, ... its embeddings decay^(depth+1). The matrices of the blocks are Muon's, the
    others AdamW's. No weight decay for 1-d parameters, positions and the class token."""
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = name.split("vit.", 1)[-1]
        depth = VIT["depth"]
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        elif name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        else:
            layer = depth + 1
        plain = parameter.ndim < 2 or name in ("cls_token", "pos_embed")
        matrix = name.startswith("blocks.") and parameter.ndim == 2
        key = (decay ** (depth + 1 - layer), 0.0 if plain else 0.05, matrix)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": params, "scale": scale, "weight_decay": weight, "matrices": matrix}
        for (scale, weight, matrix), params in groups.items()
    ]


def seeds(*numbers: int) -> np.random.Generator:
    """The generator of a batch; seeds torch's as well."""
    rng = np.random.default_rng(numbers)
    torch.manual_seed(int(rng.integers(2**31)))
    return rng


# What makes the ViT cheaper to train; exported files keep F.scaled_dot_product_attention.

ATTENTION = Attention.forward


def explicit_attention(self: Attention, x: Tensor) -> Tensor:
    """Attention.forward in plain operators: on CPUs its backward in bfloat16 is 1.6 times as
    fast as flash attention's; in float32 they are alike."""
    q, k, v = self.project(x)
    weights = ((q * self.scale).contiguous() @ k.transpose(-2, -1)).softmax(-1, dtype=q.dtype)
    return self.merge(weights @ v)


def orthogonalized(
    grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float
) -> Tensor:
    """Muon's Newton-Schulz iteration in float32; torch.optim.Muon's is in bfloat16, which took
    five times as long as everything else of a step where the processor has none."""
    a, b, c = ns_coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


def windowed_embed(
    vit: VisionTransformer, rng: np.random.Generator, largest: int
) -> Callable[[Tensor], Tensor]:
    """A replacement of vit.embed for one training batch.

    The image is taken for a random window of a larger one, of up to largest patches a side:
    its positions are a window of the position embedding, resampled to the larger grid. Small
    images teach so what larger ones of any shape need.
    """

    def embed(x: Tensor) -> Tensor:
        h, w = vit.grid(x)
        gh, gw = (int(rng.integers(v, max(v, largest) + 1)) for v in (h, w))
        pos = resample_pos_embed(vit.pos_embed, 1, vit.grid_size, [gh, gw])
        top, left = int(rng.integers(0, gh - h + 1)), int(rng.integers(0, gw - w + 1))
        grid = pos[:, 1:].reshape(gh, gw, -1)[top : top + h, left : left + w]
        x = x.contiguous(memory_format=torch.channels_last)
        tokens = vit.patch_embed(x) + grid.reshape(1, h * w, -1)
        first = (vit.cls_token + pos[:, :1]).expand(len(x), -1, -1)
        return torch.cat([first.to(tokens.dtype), tokens], dim=1)

    return embed


class training_embed:
    """Puts a replacement of vit.embed in place for a while."""

    def __init__(self, vit: VisionTransformer, embed: Callable[[Tensor], Tensor] | None) -> None:
        self.vit, self.embed = vit, embed

    def __enter__(self) -> None:
        if self.embed is not None:
            self.vit.__dict__["embed"] = self.embed

    def __exit__(self, *error: object) -> None:
        self.vit.__dict__.pop("embed", None)


def new_vit(seed: int, num_classes: int) -> VisionTransformer:
    """A ViT before any training, with a start that suits few images and steps: attention
    that looks at like tokens and at its own (Trockman and Kolter, Mimetic Initialization of
    Self-Attention Layers, 2023), and sine positions (period 4 to 48 patches)."""
    torch.manual_seed(seed)
    vit = VisionTransformer(num_classes=num_classes, **VIT)
    width, heads, side = vit.embed_dim, vit.num_heads, vit.grid_size[0]
    each = width // heads
    one, noise = torch.eye(width), width**-0.5
    for block in vit.blocks:
        queries, keys = [], []
        for _ in range(heads):
            u, s, v = torch.linalg.svd(0.7 * (one + noise * torch.randn(width, width)))
            root = s[:each].sqrt()
            queries.append((u[:, :each] * root).T)
            keys.append(v[:each] * root[:, None])
        u, s, v = torch.linalg.svd(0.4 * (noise * torch.randn(width, width) - one))
        values = (u * s.sqrt()).T
        block.attn.qkv.weight.data = torch.cat([*queries, *keys, values])
        block.attn.proj.weight.data = v.T * s.sqrt()
    turns = 2 * torch.pi / torch.logspace(np.log10(4), np.log10(48), width // 4)
    waves = torch.arange(side)[:, None] * turns
    waves = 0.5 * torch.cat([waves.sin(), waves.cos()], dim=1)
    down = waves[:, None].expand(side, side, -1)
    across = waves[None].expand(side, side, -1)
    vit.pos_embed.data[0, 1:] = torch.cat([down, across], dim=2).flatten(0, 1)
    return vit


#: Where the processor has no instructions for bfloat16, oneDNN emulates it: on one with AVX2
#: alone a step took 13 times as long as in float32.
PRECISION = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def layer_precision() -> torch.autocast:
    """The precision of the layers, PRECISION."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=PRECISION == "bfloat16")


def normalised(images: Tensor) -> Tensor:
    """0..1 -> -1..1, mean and std of the exported files."""
    return (images - 0.5) / 0.5
