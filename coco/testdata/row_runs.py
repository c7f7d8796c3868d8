"""Prints transformers' run lengths of masks, which go along the rows, as JSON."""

import argparse
import base64
import json
from pathlib import Path

import numpy as np
from transformers.models.detr.image_processing_detr import binary_mask_to_rle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, help="the JSON file that the test wrote")
    answers = []
    for case in json.loads(parser.parse_args().cases.read_text()):
        pixels = np.frombuffer(base64.b64decode(case["pixels"]), np.uint8)
        mask = (pixels != 0).reshape(case["height"], case["width"])
        answers.append([int(v) for v in binary_mask_to_rle(mask.astype(np.uint8))])
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
