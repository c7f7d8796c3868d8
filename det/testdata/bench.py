"""Time in Python what bench_test.go times in Go: microseconds, the best of many runs.

python det/testdata/bench.py [--threads 1]
"""

import argparse
import time
from types import SimpleNamespace
from typing import Any, Callable

import decode
import numpy as np
import pycocotools.mask
import torch
from transformers import DetrImageProcessor


def best(what: Callable[[], Any], runs: int) -> float:
    least = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        what()
        least = min(least, time.perf_counter() - start)
    return least * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    torch.set_num_threads(parser.parse_args().threads)
    g = torch.Generator().manual_seed(1)

    anchors, classes = 8400, 80
    i = torch.arange(anchors) % 60
    boxes = torch.stack([20 + 10 * i, 20 + 37 * i % 600, 0 * i + 60, 0 * i + 80])
    boxes = boxes + 4 * torch.randn(4, anchors, generator=g)
    scores = 0.1 * torch.rand(classes, anchors, generator=g)
    some = torch.arange(0, anchors, 14)
    scores[i[some], some] = torch.rand(len(some), generator=g)
    answer = torch.cat([boxes, scores])[None]

    def yolo() -> torch.Tensor:
        rows = answer.transpose(1, 2)[0][answer[:, 4:].amax(1)[0] > 0.25]
        corners = decode.to_corners(rows[:, :4])
        found = decode.suppress(corners, rows[:, 4:], decode.moved(0.45, 7680))
        return decode.scale_boxes(found["boxes"], [32, 32], (23, 37))

    out = SimpleNamespace(
        logits=3 * torch.randn(1, 100, 92, generator=g),
        pred_boxes=torch.rand(1, 100, 4, generator=g),
    )
    processor = DetrImageProcessor()

    y, x = np.mgrid[0:400, 0:600]
    one = np.float32(0.5 + 0.5 * np.sin(x / 40) * np.sin(y / 50))
    masks = torch.tensor(one)[None, None].repeat(20, 1, 1, 1)

    def encode() -> list[Any]:
        found = (masks > 0.5)[:, 0].numpy().astype(np.uint8)
        return [pycocotools.mask.encode(np.asfortranarray(mask)) for mask in found]

    def detr() -> Any:
        return processor.post_process_object_detection(out, 0.5, [(23, 37)])

    for name, what, runs in [
        ("YOLO", yolo, 500),
        ("SetPrediction", detr, 500),
        ("Masks", encode, 50),
    ]:
        print(f"{name:15} {best(what, runs):9.0f} us")


if __name__ == "__main__":
    main()
