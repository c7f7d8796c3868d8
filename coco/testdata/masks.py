"""Does with pycocotools what the tests of coco do with masks and prints the answers as JSON."""

import argparse
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks


def text_of(rle: dict[str, Any]) -> str:
    return rle["counts"].decode()


def encode_case(case: dict[str, Any]) -> dict[str, Any]:
    height, width = case["height"], case["width"]
    pixels = np.frombuffer(base64.b64decode(case["pixels"]), np.uint8).reshape(height, width)
    # pycocotools takes two other values side by side for a change.
    pixels = (pixels != 0).astype(np.uint8)
    rle = masks.encode(np.asfortranarray(pixels))
    assert (masks.decode(rle) == pixels).all()
    return {"counts": text_of(rle), "area": int(masks.area(rle)), "box": masks.toBbox(rle).tolist()}


def merge_case(case: dict[str, Any]) -> dict[str, Any]:
    rles = [{"size": [case["height"], case["width"]], "counts": c} for c in case["counts"]]
    return {
        "union": text_of(masks.merge(rles)),
        "intersection": text_of(masks.merge(rles, intersect=1)),
        "iou": masks.iou(rles, rles, case["crowd"]).tolist(),
    }


def polygon_case(case: dict[str, Any]) -> dict[str, Any]:
    rles = masks.frPyObjects(case["polygons"], case["height"], case["width"])
    return {"counts": text_of(masks.merge(rles)), "area": int(masks.area(masks.merge(rles)))}


def box_case(case: dict[str, Any]) -> dict[str, Any]:
    rle = masks.frPyObjects(np.array([case["box"]], np.double), case["height"], case["width"])[0]
    return {"counts": text_of(rle)}


def boxes_case(case: dict[str, Any]) -> list[list[float]]:
    return masks.iou(case["dt"], case["gt"], case["crowd"]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, help="the JSON file that the test wrote")
    cases = json.loads(parser.parse_args().cases.read_text())
    answers = {
        "encode": [encode_case(c) for c in cases["encode"]],
        "merge": [merge_case(c) for c in cases["merge"]],
        "polygons": [polygon_case(c) for c in cases["polygons"]],
        "box": [box_case(c) for c in cases["box"]],
        "boxes": [boxes_case(c) for c in cases["boxes"]],
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
