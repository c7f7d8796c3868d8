"""Python's side of the tests of dataset: reads what Go wrote, with the packages that people use.

reference.py voc FILE...             torchvision's VOCDetection.parse_voc_xml, as JSON
reference.py yolo IMAGES LABELS YAML supervision's DetectionDataset.from_yolo, as JSON
reference.py percent-g               reads doubles as JSON, writes them with "%g"
reference.py folder DIR              torchvision's ImageFolder, as JSON
reference.py masks FILE...           Pillow's pixels of masks: size, mode, sum and CRC-32
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def voc(files: list[str]) -> Any:
    """Each file as torchvision's dict."""
    from torchvision.datasets import VOCDetection

    return [VOCDetection.parse_voc_xml(ElementTree.parse(f).getroot()) for f in files]


def yolo(images: str, labels: str, yaml: str) -> Any:
    """Boxes and class ids by the name of the image."""
    import supervision as sv

    data = sv.DetectionDataset.from_yolo(images, labels, yaml)
    return {
        "classes": data.classes,
        "images": {
            Path(path).name: {
                "xyxy": found.xyxy.astype(float).tolist(),
                "class_id": found.class_id.tolist(),
            }
            for path, _, found in data
        },
    }


def folder(path: str) -> Any:
    """Classes and samples."""
    from torchvision.datasets import ImageFolder

    data = ImageFolder(path)
    return {"classes": data.classes, "samples": data.samples}


def masks(files: list[str]) -> Any:
    """What Pillow and numpy make of masks."""
    import numpy as np
    from PIL import Image

    out = []
    for name in files:
        pixels = np.array(Image.open(name)).astype(np.int64)
        crc = zlib.crc32(pixels.astype("<i8").tobytes())
        out.append({"shape": pixels.shape, "sum": int(pixels.sum()), "crc": crc})
    return out


def main() -> None:
    """Runs one of the readers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["voc", "yolo", "percent-g", "folder", "masks"])
    parser.add_argument("args", nargs="*")
    o = parser.parse_args()
    if o.what == "percent-g":
        answer: Any = ["%g" % v for v in json.load(sys.stdin)]
    elif o.what == "voc":
        answer = voc(o.args)
    elif o.what == "yolo":
        answer = yolo(*o.args)
    elif o.what == "folder":
        answer = folder(*o.args)
    else:
        answer = masks(o.args)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
