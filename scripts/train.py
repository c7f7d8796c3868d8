"""Trains the demonstration models: a small ViT pretrained for classification, then heads.

    .venv/bin/python scripts/train.py                      # everything that is not done yet
    .venv/bin/python scripts/train.py --stage pretrain     # one stage
    .venv/bin/python scripts/train.py --quick              # a tiny run that checks resuming

Stages, in this order by default:
  pretrain       the ViT names the garment of an image, and of each patch (Fashion-MNIST,
                 half of the images on photos and textures)
  segmentation   VisionTransformerForSegmentation with its 1x1 head, on the scenes
  faster_rcnn    torchvision's Faster R-CNN over a simple pyramid of the ViT
  deconvolution  the same segmentation model with one transposed convolution as its head
  yolo           the YOLO-style head
  head           a 1x1 segmentation head alone; the pretrained ViT stays as it is
  evaluate       held-out figures: testdata/models/figures.json
  curves         docs/images/training/*.png and the table of docs/training.md
  export         testdata/models/*.pt, self-described model files with references

Each of the fine-tuning stages but head trains twice with the same steps, batches and schedule:
from the pretrained ViT and from scratch (--from-scratch: only the latter; --pretrained: only
the former). A stage that was stopped goes on from its last checkpoint, to the same weights
as without the stop; a finished one is not repeated unless --again is given. Checkpoints and
logs stay in testdata/generated/training; evaluate puts the logs of finished runs beside the
models, and leaves figures and logs of runs that are not there as they were. Where there was no
pretraining, fine-tuning starts from testdata/models/garments_vit.pt.

The data: Debian's package dataset-fashion-mnist, and the scenes that make_scenes.py writes.
Layers compute in bfloat16 (autocast) where the processor has it, otherwise in float32;
weights, losses and boxes are float32.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from training import runs
from training.classification import Phase, pretrain
from training.report import curves, evaluate, export_models
from training.runs import Run, finished, train
from training.scenes import Scenes, instances_path, load_scenes
from training.tasks import TASKS, fine_tune


def quick(seed: int) -> None:
    """Trains tiny runs, each at once and with a stop, and compares the weights."""
    kept = runs.WORK
    phases = [Phase(32, 8, 6, (0.8, 1.1), 1.0), Phase(64, 4, 6, (0.6, 1.1), 1.0)]
    makers: dict[str, Callable[[], Run]] = {
        "pretrain": lambda: pretrain(seed, phases, count=20, backgrounds=20)
    }
    if instances_path("train").is_file():
        sets = load_scenes("train", 24), load_scenes("val", 4)
        for name in TASKS:

            def make(name: str = name) -> Run:
                run = fine_tune(name, True, seed, *sets)
                return dataclasses.replace(run, steps=6, every=6)

            makers[name] = make
    for name, make in makers.items():
        weights = []
        for stop in (0, 5):
            with tempfile.TemporaryDirectory() as folder:
                runs.WORK = Path(folder)
                if stop:
                    with contextlib.suppress(SystemExit):
                        train(make(), 10, stop_at=stop)
                train(make(), 10)
                done = next(runs.WORK.glob("*.pth"))
                weights.append(torch.load(done, weights_only=True))
        runs.WORK = kept
        same = all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
        print(f"{name}: stopped and gone on: {'the same weights' if same else 'OTHER WEIGHTS'}")
        if not same:
            raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = ["pretrain", *TASKS, "evaluate", "curves", "export"]
    parser.add_argument("--stage", action="append", choices=stages, help="may be repeated")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--from-scratch", action="store_true", help="fine-tune from scratch only")
    only.add_argument("--pretrained", action="store_true", help="from the pretrained ViT only")
    parser.add_argument("--quick", action="store_true", help="a tiny run that checks resuming")
    parser.add_argument("--again", action="store_true", help="train finished stages again")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument(
        "--minutes", type=float, default=40, help="limit of one start; it then stops (default 40)"
    )
    args = parser.parse_args()
    if sys.platform == "linux" and "MALLOC_TOP_PAD_" not in os.environ:
        # Freed tensors stay in the process: new pages for each cost a fifth of the time.
        gigabytes = str(4 << 30)
        keep = {"MALLOC_MMAP_THRESHOLD_": gigabytes, "MALLOC_TRIM_THRESHOLD_": gigabytes}
        keep |= {"MALLOC_TOP_PAD_": str(1 << 28), "OMP_NUM_THREADS": str(args.threads)}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    torch.set_num_threads(args.threads)
    runs.WORK.mkdir(parents=True, exist_ok=True)
    if args.quick:
        quick(args.seed)
        return
    chosen = args.stage or stages
    if "pretrain" in chosen and not finished("pretrain", args.again, args.seed):
        train(pretrain(args.seed), args.minutes, args.again)
    sets: list[Scenes] = []
    for name in [name for name in TASKS if name in chosen]:
        for scratch in (False, True):
            run = f"{name}_scratch" if scratch else name
            unwanted = args.pretrained if scratch else args.from_scratch
            unwanted = unwanted or (scratch and TASKS[name].frozen)
            if unwanted or finished(run, args.again, args.seed):
                continue
            sets = sets or [load_scenes("train"), load_scenes("val")]
            train(fine_tune(name, scratch, args.seed, *sets), args.minutes, args.again)
    if "evaluate" in chosen:
        evaluate(args.seed)
    if "curves" in chosen:
        curves()
    if "export" in chosen:
        export_models()


if __name__ == "__main__":
    main()
