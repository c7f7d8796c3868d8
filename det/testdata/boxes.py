"""Write boxes.json: boxes, and what torchvision computes from them, in float32.

python det/testdata/boxes.py --output det/testdata/boxes.json
"""

import argparse
import json
from pathlib import Path

import torch
import torchvision
from torchvision.ops import box_area, box_convert, box_iou, clip_boxes_to_image

SIZE = (120, 200)  # height, width


def boxes(n: int) -> torch.Tensor:
    """Boxes of which most overlap, some touch, and some leave the picture."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(n, 2, generator=generator) * 220 - 20
    side = torch.rand(n, 2, generator=generator) * 90 + 0.25
    made = torch.cat([corner, corner + side], dim=1)
    made[0] = torch.tensor([10.0, 10.0, 20.0, 30.0])
    made[1] = made[0]
    made[2] = torch.tensor([20.0, 10.0, 30.0, 30.0])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    b = boxes(40)
    record = {
        "torchvision": torchvision.__version__,
        "height": SIZE[0],
        "width": SIZE[1],
        "boxes": b.tolist(),
        "area": box_area(b).tolist(),
        "iou": box_iou(b, b).tolist(),
        "clip": clip_boxes_to_image(b, SIZE).tolist(),
        "xywh": box_convert(b, "xyxy", "xywh").tolist(),
        "cxcywh": box_convert(b, "xyxy", "cxcywh").tolist(),
        "from_xywh": box_convert(b, "xywh", "xyxy").tolist(),
        "from_cxcywh": box_convert(b, "cxcywh", "xyxy").tolist(),
    }
    output.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
