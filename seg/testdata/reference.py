"""Python's side of the segmentation tests.

    reference.py models DIR          small model files of every kind of output
    reference.py answers CASES DIR   the answers to a list of cases, as DIR/ID.npz

The plain path is transformers' own post_process_semantic_segmentation. Windows and augmentation
are the formulas of mmsegmentation 1.2 (EncoderDecoder.slide_inference, postprocess_result,
SegTTAModel.merge_preds) and of Segmenter (segm/model/utils.py), written out for one photo.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch.nn.functional as F

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import modelfile  # noqa: E402
import preprocess  # noqa: E402
from models.segmentation_heads import segmentation_head  # noqa: E402
from models.vision_transformer import VisionTransformer  # noqa: E402

Forward = Callable[[Tensor], Tensor]
Case = dict[str, Any]


# Models


class Logits(nn.Module):
    """Logits at a part of the input's size, by random weights on a photo's colours."""

    def __init__(self, classes: int, stride: int, sharp: float = 4.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=stride, stride=stride)
        self.head = nn.Conv2d(8, classes, kernel_size=3, padding=1)
        self.sharp = sharp

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x))) * self.sharp


class OutAux(Logits):
    """torchvision's dict, with another answer beside it."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.head(torch.tanh(self.conv(x))) * self.sharp
        return {"aux": -logits, "out": logits}


class Pair(Logits):
    """A tuple whose first tensor is not the logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.tanh(self.conv(x))
        return tokens.flatten(2).transpose(1, 2), self.head(tokens) * self.sharp


class Permuted(Logits):
    """Logits whose channels come last in memory, as a linear head folds its tokens."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(torch.tanh(self.conv(x))) * self.sharp
        return logits.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Classes(Logits):
    """Classes at the input's size, with or without a channel."""

    def __init__(self, classes: int, stride: int, channel: bool) -> None:
        super().__init__(classes, stride)
        self.channel = channel

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(torch.tanh(self.conv(x)))
        return F.interpolate(logits, size=x.shape[2:]).argmax(1, keepdim=self.channel)


def models(folder: Path) -> None:
    """Writes the small model files."""
    torch.manual_seed(11)
    exact = {"rule": "exact", "size": [48, 64]}
    near = {"rule": "shortest_edge", "size": [48], "multiple_of": 8}
    box = {"rule": "letterbox", "size": [64, 72]}
    crop = {"rule": "center", "size": [32, 32]}
    every: dict[str, tuple[nn.Module, int, dict[str, Any]]] = {
        "tokens": (Logits(5, 8), 5, {"resize": near}),
        "full": (Logits(6, 1), 6, {"resize": near}),
        "out_aux": (OutAux(5, 4), 5, {"resize": exact}),
        "permuted": (Permuted(9, 4), 9, {"resize": near}),
        "pair": (Pair(7, 4), 7, {"resize": exact}),
        "binary": (Logits(1, 4), 1, {"resize": near}),
        "classes": (Classes(6, 4, False), 6, {"resize": exact}),
        "classes_channel": (Classes(6, 4, True), 6, {"resize": box}),
        "letterbox": (Logits(5, 4), 5, {"resize": box}),
        "cropped": (Logits(5, 4), 5, {"resize": near, "crop": crop}),
        "many": (Logits(300, 4), 300, {"resize": exact}),
        "fixed": (Logits(5, 4), 5, {"resize": exact}),
    }
    for name, (module, classes, spec) in every.items():
        scripted = torch.jit.script(module.eval())
        metadata = {
            "format": 1,
            "task": "segmentation",
            "architecture": name,
            "input": {"size": [48, 64], "multiple_of": 8, "dynamic": name != "fixed"},
            "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, **spec},
            "labels": ["thing"] if classes == 1 else [f"class {i}" for i in range(classes)],
            "output": {},
        }
        if classes == 1:
            metadata["thresholds"] = {"mask": 0.4}
        save(scripted, metadata, folder / f"{name}.pt")
    vit_and_head(folder)


def save(scripted: torch.jit.ScriptModule, metadata: dict[str, Any], path: Path) -> None:
    """Writes a model file without reference answers."""
    scripted.save(str(path), _extra_files={modelfile.METADATA: json.dumps(metadata)})


def vit_and_head(folder: Path) -> None:
    """Writes a small ViT, and a U-Net head that takes four of its blocks."""
    vit = VisionTransformer(
        num_classes=3, img_size=64, patch_size=8, embed_dim=48, depth=4, num_heads=3
    )
    head = segmentation_head("unet", 48, 7, 8, 1, 4)
    for module in (vit, head):
        module.eval()
        for weight in module.parameters():
            nn.init.normal_(weight, std=0.2)
    tokens = {"patch_size": [8, 8], "prefix": 1, "num_heads": 3, "depth": 4, "embed_dim": 48}
    common = {
        "format": 1,
        "input": {"size": [64, 64], "multiple_of": 8, "dynamic": True},
        "preprocess": {"resize": {"rule": "shortest_edge", "size": [64], "multiple_of": 8}},
        "tokens": tokens,
    }
    described = {**common, "task": "classification", "output": {"kind": "logits"}}
    save(torch.jit.script(vit), described, folder / "vit.pt")
    described = {**common, "task": "segmentation_head", "output": {"kind": "head_logits"}}
    described["input"] = {**common["input"], "blocks": head.input_blocks}
    save(torch.jit.script(head), described, folder / "unet.pt")


# Answers


def leaf(answer: Any) -> Tensor:
    """The logits or classes of a model's answer."""
    if isinstance(answer, dict):
        return answer["out"]
    return answer[1] if isinstance(answer, tuple) else answer


def hugging_face(logits: Tensor, sizes: list[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor]]:
    """transformers' post_process_semantic_segmentation: class maps, and the logits behind them."""
    from transformers import SegformerImageProcessor

    found = SegformerImageProcessor().post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), target_sizes=sizes, return_segmentation_scores=True
    )
    return [f.segmentation for f in found], [f.segmentation_scores for f in found]


def bilinear(x: Tensor, size: Any) -> Tensor:
    """mmsegmentation's resize, and Segmenter's."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def slide_mmseg(
    forward: Forward, inputs: Tensor, crop: list[int], stride: list[int], batch: int
) -> Tensor:
    """EncoderDecoder.slide_inference; batch windows at once where mmsegmentation takes one."""
    h_stride, w_stride = stride
    h_crop, w_crop = crop
    _, _, h_img, w_img = inputs.shape
    h_grids = max(h_img - h_crop + h_stride - 1, 0) // h_stride + 1
    w_grids = max(w_img - w_crop + w_stride - 1, 0) // w_stride + 1
    places = []
    for h_idx in range(h_grids):
        for w_idx in range(w_grids):
            y2 = min(h_idx * h_stride + h_crop, h_img)
            x2 = min(w_idx * w_stride + w_crop, w_img)
            places.append((max(y2 - h_crop, 0), y2, max(x2 - w_crop, 0), x2))
    preds = count = None
    for i in range(0, len(places), batch):
        part = places[i : i + batch]
        crops = [inputs[:, :, y1:y2, x1:x2] for y1, y2, x1, x2 in part]
        logits = forward(crops[0] if len(crops) == 1 else torch.cat(crops))
        if logits.shape[2:] != crops[0].shape[2:]:
            logits = bilinear(logits, crops[0].shape[2:])
        if preds is None:
            preds = inputs.new_zeros((1, logits.shape[1], h_img, w_img))
            count = inputs.new_zeros((1, 1, h_img, w_img))
        for k, (y1, y2, x1, x2) in enumerate(part):
            preds += F.pad(logits[k : k + 1], (x1, w_img - x2, y1, h_img - y2))
            count[:, :, y1:y2, x1:x2] += 1
    assert (count == 0).sum() == 0
    return preds / count


def pad_mmseg(x: Tensor, window: list[int], multiple: int | None) -> Tensor:
    """mmseg's stack_batch: right and bottom, with 0; to a multiple, or to the window."""

    def side(have: int, want: int) -> int:
        if have >= want:
            return have
        return want if multiple is None else -(-have // multiple) * multiple

    h, w = x.shape[2:]
    return F.pad(x, (0, side(w, window[1]) - w, 0, side(h, window[0]) - h), value=0)


def slide_segmenter(forward: Forward, im: Tensor, window: int, stride: int, batch: int) -> Tensor:
    """Segmenter's resize, sliding_window and the first half of merge_windows."""
    h, w = im.shape[2:]
    if min(h, w) < window:
        size = (window, int(w / h * window)) if h < w else (int(h / w * window), window)
        im = F.interpolate(im, size, mode="bilinear")
    height, width = im.shape[2:]
    h_anchors = [a for a in range(0, height, stride) if a < height - window] + [height - window]
    w_anchors = [a for a in range(0, width, stride) if a < width - window] + [width - window]
    anchors = [(y, x) for y in h_anchors for x in w_anchors]
    crops = torch.stack([im[:, :, y : y + window, x : x + window] for y, x in anchors])[:, 0]
    maps = []
    for i in range(0, len(crops), batch):
        logits = forward(crops[i : i + batch])
        if logits.shape[2] != window:
            logits = bilinear(logits, (window, window))
        maps.append(logits)
    maps = torch.cat(maps)
    logit = torch.zeros((maps.shape[1], height, width))
    count = torch.zeros((1, height, width))
    for one, (y, x) in zip(maps, anchors):
        logit[:, y : y + window, x : x + window] += one
        count[:, y : y + window, x : x + window] += 1
    return (logit / count).unsqueeze(0)


def probabilities(logits: Tensor) -> Tensor:
    """(C, H, W): softmax over the classes, sigmoid of a single channel."""
    return logits.softmax(dim=0) if logits.shape[0] > 1 else logits.sigmoid()


def classes_of(scores: Tensor, threshold: float) -> Tensor:
    """argmax of (C, H, W); of a single channel of probabilities the mask."""
    return scores.argmax(dim=0) if scores.shape[0] > 1 else (scores > threshold)[0]


def views(case: Case, image: Any, metadata: dict[str, Any]) -> Iterator[tuple[Tensor, bool]]:
    """The pixels of every view of a photo, and whether they are mirrored."""
    spec, given = dict(metadata["preprocess"]), metadata["input"]
    multiple = given["multiple_of"]
    if "slide" in case:
        spec["resize"], spec["crop"], multiple = case["slide"]["resize"], {}, 1
    height, width = preprocess.resized(image.height, image.width, spec["resize"])
    for scale in case["scales"]:
        if scale != 1:
            if spec["resize"]["rule"] == "letterbox":
                height, width = spec["resize"]["size"]
            size = [int(v * float(scale) + 0.5) for v in (height, width)]
            if multiple > 1:
                size = [max(multiple, round(v / multiple) * multiple) for v in size]
            rule = "letterbox" if spec["resize"]["rule"] == "letterbox" else "exact"
            scaled = {**spec, "resize": {"rule": rule, "size": size}}
        else:
            scaled = spec
        pixels = modelfile.aligned(preprocess.to_tensor(image, scaled)[None])
        for flip in (False, True) if case.get("flip") else (False,):
            yield pixels.flip(3) if flip else pixels, flip


def letterboxed(logits: Tensor, pixels: Tensor, image: Any) -> Tensor:
    """Cuts the padding of a letterbox off, after a resize to the padded size."""
    height, width = pixels.shape[2:]
    rule = {"rule": "letterbox", "size": [height, width]}
    h, w = preprocess.resized(image.height, image.width, rule)
    if (h, w) == (height, width):
        return logits
    logits = bilinear(logits, (height, width))
    top, left = round((height - h) / 2 - 0.1), round((width - w) / 2 - 0.1)
    return logits[:, :, top : top + h, left : left + w]


def segment(case: Case, forward: Forward, metadata: dict[str, Any], path: str) -> dict[str, Tensor]:
    """Class map, probabilities and logits of one photo."""
    image = preprocess.decode(path)
    size = (image.height, image.width)
    letterbox = metadata["preprocess"]["resize"]["rule"] == "letterbox" and "slide" not in case
    slide = case.get("slide")
    segmenter = slide is not None and slide["rule"] == "segmenter"
    at_photo = []
    for pixels, flip in views(case, image, metadata):
        if segmenter:
            rule = slide["window"][0], slide["stride"][0], slide["batch"]
            logits = bilinear(slide_segmenter(forward, pixels, *rule), size)[0]
            at_photo.append(torch.flip(logits, (2,)) if flip else logits)
            continue
        if slide is not None:
            h, w = pixels.shape[2:]
            multiple = metadata["input"]["multiple_of"] if metadata["input"]["dynamic"] else None
            padded = pad_mmseg(pixels, slide["window"], multiple)
            rule = slide["window"], slide["stride"], slide["batch"]
            logits = slide_mmseg(forward, padded, *rule)[:, :, :h, :w]
        else:
            logits = forward(pixels)
        if slide is None and len(case["scales"]) == 1 and not case.get("flip") and not letterbox:
            at_photo.append(hugging_face(logits, [size])[1][0])
            continue
        logits = logits.flip(dims=(3,)) if flip else logits
        logits = letterboxed(logits, pixels, image) if letterbox else logits
        at_photo.append(bilinear(logits, size).squeeze(0))
    threshold = case["threshold"]
    if len(at_photo) == 1 and not segmenter:
        scores = at_photo[0] if at_photo[0].shape[0] > 1 else at_photo[0].sigmoid()
        return {
            "class_map": classes_of(scores, threshold),
            "probabilities": probabilities(at_photo[0]),
            "logits": at_photo[0],
        }
    mean = torch.zeros(at_photo[0].shape)
    for logits in at_photo:
        mean += probabilities(logits)
    mean /= len(at_photo)
    return {"class_map": classes_of(mean, threshold), "probabilities": mean}


def classes(module: nn.Module, metadata: dict[str, Any], path: str) -> dict[str, Tensor]:
    """The class map of a model that gives classes, by F.interpolate's nearest."""
    image = preprocess.decode(path)
    size = (image.height, image.width)
    pixels = modelfile.aligned(preprocess.to_tensor(image, metadata["preprocess"])[None])
    found = modelfile.run(module, "forward", [pixels], 0)
    found = found.reshape(1, 1, *found.shape[-2:]).to(torch.float32)
    rule = metadata["preprocess"]["resize"]
    if rule["rule"] == "letterbox":
        h, w = preprocess.resized(image.height, image.width, rule)
        top, left = (round((s - v) / 2 - 0.1) for s, v in zip(rule["size"], (h, w)))
        found = found[:, :, top : top + h, left : left + w]
    return {"class_map": F.interpolate(found, size=size, mode="nearest")[0, 0]}


def post(case: Case) -> dict[str, Tensor]:
    """post_process_semantic_segmentation of given logits."""
    logits = torch.from_numpy(np.load(case["logits"]))
    maps, scores = hugging_face(logits, [tuple(size) for size in case["sizes"]])
    out: dict[str, Tensor] = {}
    for i, (found, score) in enumerate(zip(maps, scores)):
        out[f"class_map.{i}"], out[f"logits.{i}"] = found, score
        out[f"probabilities.{i}"] = score.softmax(0)
    return out


def batch(case: Case, forward: Forward, metadata: dict[str, Any]) -> dict[str, Tensor]:
    """Photos of one size in one forward, then transformers' postprocessing."""
    images = [preprocess.decode(path) for path in case["images"]]
    pixels = torch.stack([preprocess.to_tensor(i, metadata["preprocess"]) for i in images])
    logits = forward(modelfile.aligned(pixels))
    maps, _ = hugging_face(logits, [(i.height, i.width) for i in images])
    return {f"class_map.{i}": found for i, found in enumerate(maps)}


def answer(case: Case) -> dict[str, Tensor]:
    """The arrays of one case."""
    if "logits" in case:
        return post(case)
    module, metadata, _ = modelfile.load(case["model"])
    metadata["preprocess"] = case.get("preprocess") or metadata["preprocess"]
    module.eval()

    def forward(x: Tensor) -> Tensor:
        return leaf(modelfile.run(module, "forward", [x], 0))

    if case.get("head"):
        head, described, _ = modelfile.load(case["head"])
        head.eval()
        blocks = described["input"].get("blocks")

        def forward(x: Tensor) -> Tensor:  # noqa: F811
            size = [int(x.shape[2]), int(x.shape[3])]
            if blocks:
                features = modelfile.run(module, "forward_blocks", [x, blocks], 0)
            else:
                features, _ = modelfile.run(module, "forward_features", [x], 0)
            return modelfile.run(head, "forward", [features, *size], 0)

    if case.get("batch"):
        return batch(case, forward, metadata)
    out: dict[str, Tensor] = {}
    for i, path in enumerate(case["images"]):
        if case.get("classes"):
            found = classes(module, metadata, path)
        else:
            found = segment(case, forward, metadata, path)
        out.update({f"{name}.{i}": tensor for name, tensor in found.items()})
    return out


def answers(cases: Path, folder: Path, threads: int) -> None:
    """Writes DIR/ID.npz for each case."""
    torch.set_num_threads(threads)
    for case in json.loads(cases.read_text()):
        with torch.inference_mode(), zipfile.ZipFile(folder / f"{case['id']}.npz", "w") as archive:
            for name, tensor in answer(case).items():
                array = tensor.numpy()
                if name.startswith("class_map"):
                    array = array.astype(np.uint8)
                with archive.open(f"{name}.npy", "w") as file:
                    np.save(file, np.ascontiguousarray(array))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("models", help="write the small model files")
    make.add_argument("folder", type=Path)
    ask = commands.add_parser("answers", help="write the answers to the cases")
    ask.add_argument("cases", type=Path)
    ask.add_argument("folder", type=Path)
    ask.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.command == "models":
        models(args.folder)
    else:
        answers(args.cases, args.folder, args.threads)


if __name__ == "__main__":
    main()
