"""Times training steps: Go beside Python, on the same TorchScript file and batch.

    .venv/bin/python scripts/bench_training.py testdata/models/garments_segmentation.pt
    .venv/bin/python scripts/bench_training.py MODEL --freeze vit --optimizer sgd --threads 1

Both load the file, set training mode, and make steps of forward, loss, backward and optimizer
on one batch of noise. They run in turns, a few steps each, on the same cores; the table gives
the median time of a step, the ratio of the medians, and the median of the rounds' own ratios.
The last losses of both are compared, so that both did the same. Go's half is
internal/trainbench; this script builds it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import modelfile

ROOT = Path(__file__).resolve().parent.parent
OPTIMIZERS = ("adamw", "adam", "sgd")


def make_batch(module: torch.jit.ScriptModule, task: str, count: int, side: int) -> dict[str, Any]:
    """Noise, and targets that the model can have."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=generator)
    if task == "detection":
        batch: dict[str, Any] = {"images": images}
        for i in range(count):
            corner = torch.rand(3, 2, generator=generator) * side * 0.5
            size = side * (0.2 + 0.25 * torch.rand(3, 2, generator=generator))
            batch[f"boxes.{i}"] = torch.cat([corner, corner + size], dim=1)
            batch[f"labels.{i}"] = torch.randint(1, 4, (3,), generator=generator)
        return batch
    with torch.inference_mode():
        shape = torch.jit.load(str(module)).eval()(images[:1]).shape
    if task == "segmentation":
        masks = torch.randint(0, shape[1], (count, side // 8, side // 8), generator=generator)
        masks = masks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
        return {"images": images, "masks": masks}
    return {"images": images, "classes": torch.randint(0, shape[1], (count,), generator=generator)}


def is_head(name: str) -> bool:
    """Whether a parameter of this project's models is outside the ViT."""
    parts = name.split(".")
    return (
        parts[0] in ("head", "segmentation_head", "rpn", "roi_heads", "levels", "predict")
        or "levels" in parts[:2]
    )


class Python:
    """What one would write in Python."""

    def __init__(self, settings: dict[str, Any], task: str, batch: dict[str, Tensor]) -> None:
        self.model = torch.jit.load(settings["model"])
        self.model.train()
        self.task, self.batch = task, batch
        self.bfloat16 = bool(settings["bfloat16"])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(settings["freeze"] != "vit" or is_head(name))
        parameters, rate = list(self.model.parameters()), settings["lr"]
        if settings["optimizer"] == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
        elif settings["optimizer"] == "adam":
            self.optimizer = torch.optim.Adam(parameters, rate)
        else:
            self.optimizer = torch.optim.AdamW(parameters, rate)
        torch.manual_seed(settings["seed"])

    def loss(self) -> Tensor:
        images = self.batch["images"]
        if self.task == "detection":
            count = len(images)
            targets = [
                {"boxes": self.batch[f"boxes.{i}"], "labels": self.batch[f"labels.{i}"]}
                for i in range(count)
            ]
            losses, _ = self.model(list(images.unbind(0)), targets)
            total = torch.zeros(())
            for name in sorted(losses):
                total = total + losses[name]
            return total
        logits = self.model(images)
        logits = logits.float() if self.bfloat16 else logits
        if self.task == "segmentation":
            return F.cross_entropy(logits, self.batch["masks"], ignore_index=255)
        return F.cross_entropy(logits, self.batch["classes"])

    def steps(self, count: int) -> tuple[float, float]:
        """Makes steps; returns the seconds and the last loss."""
        start = time.perf_counter()
        last = 0.0
        for _ in range(count):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                loss = self.loss()
            last = loss.item()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - start, last


class Go:
    """internal/trainbench."""

    def __init__(self, settings: dict[str, Any], program: Path) -> None:
        self.process = subprocess.Popen(
            [str(program), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def steps(self, count: int) -> tuple[float, float]:
        """Makes steps; returns the seconds and the last loss."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(count, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            raise SystemExit("trainbench: got no answer")
        return float(answer[0]), float(answer[1])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def main() -> None:
    """Times both and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=128, help="of the square images (128)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--freeze", choices=("none", "vit"), default="none")
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="of a round (4)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _, metadata, _ = modelfile.load(args.model)
    task = metadata["task"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "trainbench"
        subprocess.run(
            ["go", "build", "-o", str(program), "./internal/trainbench"], cwd=ROOT, check=True
        )
        batch = make_batch(args.model, task, args.batch_size, args.side)
        path = Path(folder) / "batch.npz"
        np.savez(path, **{name: t.numpy() for name, t in batch.items()})
        settings = {
            "model": str(args.model.resolve()), "batch": str(path), "threads": args.threads,
            "optimizer": args.optimizer, "lr": 1e-4, "freeze": args.freeze,
            "bfloat16": args.bfloat16, "seed": 1,
        }  # fmt: skip
        sides: dict[str, Any] = {"python": Python(settings, task, batch)}
        sides["go"] = Go(settings, program)
        times: dict[str, list[float]] = {name: [] for name in sides}
        worst = 0.0
        for k in range(args.rounds + 1):
            losses = {}
            for name in ("python", "go") if k % 2 else ("go", "python"):
                seconds, losses[name] = sides[name].steps(args.steps)
                if k > 0:  # the first round settles the executors
                    times[name].append(seconds / args.steps)
            worst = max(worst, abs(losses["go"] - losses["python"]) / abs(losses["python"]))
            print(f"round {k}: {losses}", file=sys.stderr)
        sides["go"].close()
    median = {name: statistics.median(t) for name, t in times.items()}
    rounds = statistics.median(p / g for p, g in zip(times["python"], times["go"]))
    print(
        f"{args.model.name}, batch {args.batch_size} of {args.side} px, {args.optimizer}, "
        f"freeze {args.freeze}, {'bfloat16' if args.bfloat16 else 'float32'}, "
        f"{args.threads} threads, {args.rounds} rounds of {args.steps} steps"
    )
    for name in ("python", "go"):
        rate = 1 / median[name]
        print(f"  {name:7} {median[name] * 1e3:8.2f} ms a step, {rate:7.2f} steps/s")
    print(
        f"  go makes {median['python'] / median['go']:.3f} times Python's steps "
        f"(median of the rounds: {rounds:.3f}); largest difference of a loss {worst:.1e}"
    )


if __name__ == "__main__":
    main()
