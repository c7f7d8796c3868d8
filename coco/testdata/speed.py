"""Times pycocotools.mask on the input of package coco's benchmarks; prints seconds as JSON."""

import argparse
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks


def best(f: Callable[[], Any], count: int = 5) -> float:
    """The least time of several calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, help="the JSON file that the benchmark wrote")
    case = json.loads(parser.parse_args().cases.read_text())
    photo = case["photo"]
    pixels = np.frombuffer(base64.b64decode(photo["pixels"]), np.uint8)
    pixels = pixels.reshape(photo["height"], photo["width"])
    rle = masks.encode(np.asfortranarray(pixels))
    dt, gt = case["dt"], case["gt"]
    crowd = [0] * len(gt)
    polygons, height, width = case["polygons"], case["height"], case["width"]
    answers = {
        # Masks lie in rows, as models give them, and encode wants columns.
        "encode": best(lambda: masks.encode(np.asfortranarray(pixels))),
        "decode": best(lambda: np.ascontiguousarray(masks.decode(rle))),
        "iou": best(lambda: masks.iou(dt, gt, crowd)),
        "polygons": best(lambda: masks.frPyObjects(polygons, height, width)),
        "read": best(lambda: json.loads(Path(case["dataset"]).read_text()), 3),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
