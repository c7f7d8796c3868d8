"""Prints Python's output for a model file, in the format of the torchvit CLI.

    .venv/bin/python scripts/parity.py classify MODEL IMAGE... [--top 5] [--json]
    .venv/bin/python scripts/parity.py detect   MODEL IMAGE... [--threshold 0.5] [--json]
    .venv/bin/python scripts/parity.py segment  MODEL IMAGE... [--head HEAD] [--json]
    .venv/bin/python scripts/parity.py attend   MODEL IMAGE... [--block -1] [--json]
    .venv/bin/python scripts/parity.py dump --cases cases.json --out DIR

so that `diff <(bin/torchvit classify M I) <(scripts/parity.py classify M I)` shows nothing.
Images run one at a time (batch 1) with --threads threads (default 1).

Text format
-----------
One header line with the image's path as it was given, then one line for each answer,
indented by two spaces; fields are separated by two spaces. An image without answers has
its header only. There is no blank line between images.

    classify   PATH
                 RANK  LABEL  SCORE
    detect     PATH
                 RANK  LABEL  SCORE  XMIN  YMIN  XMAX  YMAX
    segment    PATH
                 LABEL  PIXELS  SHARE
    attend     PATH
                 block BLOCK  head HEAD  min MIN  max MAX  argmax ROW,COL

RANK counts from 1. Classes are sorted by score, highest first; equal scores by class
index. Detections come by score, highest first, and those with a score below the threshold
are left out: the file's thresholds.score, else 0.5, of the YOLO kinds 0.25; a score that
equals it stays only for torchvision's detectors (see postprocess.py). Segment lists classes
that have pixels, by class index; the class map is at the photo's own size, SHARE is pixels /
total rounded to float32. With --head a ViT whose preprocess crops gets the whole photo at
the crop's size. Attend shows the class token's attention (row 0, prefix columns dropped,
folded to the patch grid) of one block, resolved to 0..depth-1; ROW,COL of the first largest
patch. LABEL is labels[index], or "class INDEX" where the file has no such label.

Numbers are float32 in the shortest form that reads back to the same float32, never with
an exponent, and always with a point: 0.5, 1.0, 0.000012345.

JSON format (--json)
--------------------
One object for each image, one a line, without spaces, non-ASCII text kept, keys in this
order:

    {"image":PATH,"classes":[{"label":L,"score":S},...]}
    {"image":PATH,"width":W,"height":H,"detections":[{"score":S,"label":L,
        "box":{"xmin":X,"ymin":Y,"xmax":X,"ymax":Y}},...]}
    {"image":PATH,"width":W,"height":H,"classes":[{"label":L,"pixels":N,"share":S},...]}
    {"image":PATH,"block":B,"heads":[{"head":H,"min":A,"max":B,"argmax":[ROW,COL]},...]}

dump
----
--cases is a JSON list (or {"cases": [...]}) of objects:

    id        file name of the answer: DIR/ID.npz
    model     path of a TorchScript file
    images    list of image paths. They become one batch after the file's preprocess, so
              their tensors must have one shape; a model whose input.layout is "list" (a torchvision
              detector) gets them as a list of any sizes
    size      optional [H, W]: the file's resize rule is replaced by exact H x W, no crop
    synthetic optional, instead of images: {"shape": [B, 3, H, W], "seed": 1} gives noise in
              -2..2, or in 0..1 where the file normalises by itself; one image for each of
              the batch
    inputs    optional, instead of images: a list of values, each one of {"tensor": NPY},
              {"tensors": [NPY, ...]}, {"int": 3}, {"ints": [..]}, {"float": 0.5},
              {"bool": true}, {"string": "x"}, {"none": true}, {"dict": {KEY: NPY}}
    method    default "forward"
    args      optional list of extra arguments (numbers, strings or lists of numbers)
    head      optional path of a segmentation head: CustomSegmentationModel, that is
              forward_features or forward_blocks of model, then forward(features, H, W) of
              head; where the model's preprocess crops, the whole photo is taken as by segment
    threads   torch.set_num_threads, default 1
    dtype     "float32" (default) or "bfloat16": module.to and inputs cast
    warmup    runs before the one that counts, default 2
    top_k     how many classes to keep, default 5

Paths are relative to the working folder. Each DIR/ID.npz (written whole or not at all)
holds in0, in1, ... (in0.0, in0.1, ... for a list of tensors), the answer as out, out.0,
out.1.0.boxes and so on, all bfloat16 as float32, and

    image_sizes    int64 (n, 2), height and width of the photos
    class_map      classes at the photo's own size, uint8 (int32 above 256 classes), of a
                   segmentation model; class_map.I when there are several images. For
                   synthetic input the size is the input's
    found.I.boxes  of a detector: what it finds in image I above the file's threshold, as
                   postprocess.detections gives it, with found.I.labels, found.I.scores
                   and perhaps found.I.masks (N, H, W) of 0 and 1
    topk_indices   int64 (B, k), topk_scores float32 (B, k): softmax of the logits in float32
    features       only with head: the tokens that went into it; features.J of its blocks

and DIR/index.json says for each id what was run: {"id": {"seconds":..,"outputs":[..]}}. A
case that raises stops the dump, unless the case says "error": true; then DIR/ID.txt holds
the text of the error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import modelfile
import postprocess
import preprocess


def number(value: float) -> str:
    """A float32 as the shortest text that reads back to it."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def to_json(value: Any) -> str:
    """Compact JSON in which np.float32 is written by number."""
    if isinstance(value, np.floating):
        return number(float(value))
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(k)}:{to_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(to_json(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


class Model:
    """A model file with what it says of itself."""

    def __init__(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        if not Path(path).is_file():
            raise SystemExit(f"{path}: no such file")
        module, metadata, _ = modelfile.load(path)
        module.eval()
        if dtype != torch.float32:
            module.to(dtype)
        self.describe(module, metadata, dtype)

    @classmethod
    def of(cls, module: torch.nn.Module, metadata: dict[str, Any]) -> Model:
        """A model in memory with the metadata that its file will have."""
        model = cls.__new__(cls)
        model.describe(module, metadata, torch.float32)
        return model

    def describe(
        self, module: torch.nn.Module, metadata: dict[str, Any], dtype: torch.dtype
    ) -> None:
        """Sets what the rest needs to know."""
        self.module, self.metadata, self.dtype = module, metadata, dtype
        self.task = self.metadata.get("task", "classification")
        self.spec = self.metadata.get("preprocess", {})

    def label(self, index: int) -> str:
        """labels[index], or "class INDEX"; of a segmentation file with one label, a binary mask,
        class 0 is "background" and class 1 that label."""
        labels = self.metadata.get("labels", [])
        if len(labels) == 1 and self.task in ("segmentation", "segmentation_head"):
            labels = ["background", *labels]
        return labels[index] if 0 <= index < len(labels) else f"class {index}"

    def need(self, command: str, *tasks: str) -> None:
        """Fails when the file is for another task."""
        if self.task not in tasks:
            raise SystemExit(
                f"{command}: the file's task is {self.task}, want {' or '.join(tasks)}"
            )


def top_k(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Softmax in float32 and the count best: scores and indices (B, k), ties by index."""
    scores = torch.softmax(logits.float(), dim=-1)
    best = torch.sort(scores, dim=-1, descending=True, stable=True)
    count = min(count, scores.shape[-1])
    return best.values[:, :count].contiguous(), best.indices[:, :count].contiguous()


def classify(args: argparse.Namespace, model: Model) -> None:
    """Prints the best classes of each image."""
    model.need("classify", "classification")
    for path in args.images:
        tensor, _ = preprocess.load_tensor(path, model.spec)
        logits = modelfile.run(model.module, "forward", [modelfile.aligned(tensor[None])], 0)
        scores, indices = top_k(logits, args.top)
        rows = list(zip(map(int, indices[0]), scores[0].numpy()))
        if args.json:
            classes = [{"label": model.label(i), "score": s} for i, s in rows]
            print(to_json({"image": path, "classes": classes}))
            continue
        print(path)
        for rank, (index, score) in enumerate(rows, 1):
            print(f"  {rank}  {model.label(index)}  {number(score)}")


def detect(args: argparse.Namespace, model: Model) -> None:
    """Prints the boxes of each image."""
    model.need("detect", "detection")
    listed = modelfile.takes_list(model.metadata)
    for path in args.images:
        tensor, (height, width) = preprocess.load_tensor(path, model.spec)
        x = [tensor] if listed else modelfile.aligned(tensor[None])
        answer = modelfile.run(model.module, "forward", [x], 0)
        seen = (int(tensor.shape[1]), int(tensor.shape[2]))
        (found,) = postprocess.detections(
            answer, model.metadata, [(height, width)], [seen], args.threshold
        )
        boxes, scores = found["boxes"].numpy(), found["scores"].numpy()
        labels = found["labels"].numpy()
        if args.json:
            names = ("xmin", "ymin", "xmax", "ymax")
            rows = [
                {
                    "score": scores[i],
                    "label": model.label(labels[i]),
                    "box": dict(zip(names, boxes[i])),
                }
                for i in range(len(scores))
            ]
            print(to_json({"image": path, "width": width, "height": height, "detections": rows}))
            continue
        print(path)
        for i in range(len(scores)):
            corners = "  ".join(number(v) for v in boxes[i])
            print(f"  {i + 1}  {model.label(labels[i])}  {number(scores[i])}  {corners}")


def segment(args: argparse.Namespace, model: Model) -> None:
    """Prints the classes of each image with their pixels."""
    head = Model(args.head) if args.head else None
    if head is None:
        model.need("segment", "segmentation")
    else:
        head.need("segment --head", "segmentation_head")
    spec = whole_photo(model) if head else model.spec
    for path in args.images:
        tensor, (height, width) = preprocess.load_tensor(path, spec)
        x = modelfile.aligned(tensor[None])
        if head is None:
            logits = modelfile.run(model.module, "forward", [x], 0)
        else:
            logits, _ = composed(model, head, x, 0)
        classes = postprocess.class_map(logits, (head or model).metadata, height, width)
        counts = np.bincount(classes.ravel())
        rows = [
            ((head or model).label(int(i)), int(counts[i]), np.float32(counts[i] / classes.size))
            for i in np.flatnonzero(counts)
        ]
        if args.json:
            named = [{"label": n, "pixels": p, "share": s} for n, p, s in rows]
            print(to_json({"image": path, "width": width, "height": height, "classes": named}))
            continue
        print(path)
        for name, pixels, share in rows:
            print(f"  {name}  {pixels}  {number(share)}")


def whole_photo(model: Model) -> dict[str, Any]:
    """The preprocess of a ViT for segmentation: where it crops or pads, the photo is resized
    to that size instead, the shorter side only where the model takes other sizes."""
    spec, given = dict(model.spec), model.metadata.get("input", {})
    crop, resize = spec.get("crop", {}), spec.get("resize", {})
    if crop.get("rule", "none") != "none":
        size = crop["size"]
    elif resize.get("rule") == "letterbox":
        size = resize["size"]
    else:
        return spec
    if given.get("dynamic"):
        multiple = given.get("multiple_of", 0)
        rule = {"rule": "shortest_edge", "size": [min(size)], "multiple_of": multiple}
    else:
        rule = {"rule": "exact", "size": [size[0], size[-1]]}
    return {**spec, "resize": rule, "crop": {"rule": "none", "size": []}}


def attend(args: argparse.Namespace, model: Model) -> None:
    """Prints each head's range and strongest patch of one block."""
    model.need("attend", "classification", "segmentation")
    tokens = model.metadata["tokens"]
    prefix, depth = int(tokens["prefix"]), int(tokens["depth"])
    for path in args.images:
        tensor, _ = preprocess.load_tensor(path, model.spec)
        x = modelfile.aligned(tensor[None])
        attn = modelfile.run(model.module, "attention", [x, args.block], 0)
        columns = tensor.shape[2] // int(tokens["patch_size"][-1])
        maps = attn[0, :, 0, prefix:].float().numpy()
        block = args.block + depth if args.block < 0 else args.block
        rows = [
            (h, m.min(), m.max(), [int(m.argmax()) // columns, int(m.argmax()) % columns])
            for h, m in enumerate(maps)
        ]
        if args.json:
            heads = [{"head": h, "min": a, "max": b, "argmax": c} for h, a, b, c in rows]
            print(to_json({"image": path, "block": block, "heads": heads}))
            continue
        print(path)
        for h, low, high, (row, column) in rows:
            print(
                f"  block {block}  head {h}  min {number(low)}  max {number(high)}"
                f"  argmax {row},{column}"
            )


def composed(model: Model, head: Model, x: Tensor, warmup: int) -> tuple[Tensor, Any]:
    """CustomSegmentationModel from two files: logits and the features between them, one
    tensor of tokens or, for a head with input.blocks, those of each block."""
    blocks = head.metadata.get("input", {}).get("blocks") or []
    if blocks:
        features = modelfile.run(model.module, "forward_blocks", [x, blocks], warmup)
    else:
        features, _ = modelfile.run(model.module, "forward_features", [x], warmup)
    size = [int(x.shape[2]), int(x.shape[3])]
    return modelfile.run(head.module, "forward", [features, *size], warmup), features


def load_npy(path: str, dtype: torch.dtype) -> Tensor:
    """Reads one npy file; floating tensors are cast."""
    tensor = torch.from_numpy(np.load(path, allow_pickle=False))
    return modelfile.aligned(tensor.to(dtype) if tensor.is_floating_point() else tensor)


def case_value(value: dict[str, Any], dtype: torch.dtype) -> Any:
    """One of a case's inputs."""
    ((kind, content),) = value.items()
    if kind == "tensor":
        return load_npy(content, dtype)
    if kind == "tensors":
        return [load_npy(path, dtype) for path in content]
    if kind == "dict":
        return {key: load_npy(path, dtype) for key, path in content.items()}
    if kind == "none":
        return None
    if kind in ("int", "ints", "float", "bool", "string"):
        return content
    raise SystemExit(f"input kind {kind!r} is not known")


def case_inputs(
    case: dict[str, Any], model: Model, dtype: torch.dtype, head: Model | None = None
) -> tuple[list[Any], list[tuple[int, int]]]:
    """The arguments of a case and the sizes of its photos."""
    listed = modelfile.takes_list(model.metadata)
    unit = model.spec.get("normalize", "torchvision") == "none"
    sizes: list[tuple[int, int]] = []
    if "inputs" in case:
        args = [case_value(value, dtype) for value in case["inputs"]]
    else:
        tensors: list[Tensor] = []
        if "synthetic" in case:
            shape = [int(v) for v in case["synthetic"]["shape"]]
            noise = modelfile.noise(shape, int(case["synthetic"].get("seed", 1)))
            tensors = list((noise + 2) / 4 if unit else noise)
            sizes = [(shape[2], shape[3])] * shape[0]
        else:
            spec = dict(whole_photo(model) if head else model.spec)
            if "size" in case:
                spec["resize"] = {"rule": "exact", "size": list(case["size"])}
                spec["crop"] = {"rule": "none", "size": []}
            for path in case["images"]:
                tensor, size = preprocess.load_tensor(path, spec)
                tensors.append(tensor)
                sizes.append(size)
        if listed:
            args = [[modelfile.aligned(t.to(dtype)) for t in tensors]]
        else:
            shapes = sorted({tuple(t.shape) for t in tensors})
            if len(shapes) != 1:
                raise SystemExit(f"{case['id']}: images give shapes {shapes}, a batch needs one")
            args = [modelfile.aligned(torch.stack(tensors).to(dtype))]
    return args + list(case.get("args", [])), sizes


def run_case(case: dict[str, Any], model: Model, head: Model | None) -> dict[str, np.ndarray]:
    """Runs one case and returns its arrays."""
    args, sizes = case_inputs(case, model, model.dtype, head)
    method, warmup = case.get("method", "forward"), int(case.get("warmup", 2))
    arrays: dict[str, np.ndarray] = {}
    for i, value in enumerate(args):
        if isinstance(value, Tensor) or (isinstance(value, list) and not scalars(value)):
            arrays.update(modelfile.flatten(value, f"in{i}"))
    if head is None:
        answer = modelfile.run(model.module, method, args, warmup)
    else:
        answer, features = composed(model, head, args[0], warmup)
        arrays.update(modelfile.flatten(features, "features"))
    arrays.update(modelfile.flatten(answer))
    if sizes:
        arrays["image_sizes"] = np.array(sizes, np.int64)
    described = (head or model).metadata
    task = described.get("task", "classification")
    if method not in ("forward", "forward_with_attention"):
        return arrays
    if task == "detection" and sizes:
        images = args[0]
        seen = [(int(t.shape[-2]), int(t.shape[-1])) for t in images]
        for i, found in enumerate(postprocess.detections(answer, described, sizes, seen)):
            arrays.update(modelfile.flatten(found, f"found.{i}"))
    logits = answer[0] if method == "forward_with_attention" else answer
    if not isinstance(logits, Tensor):
        return arrays
    if task in ("segmentation", "segmentation_head") and sizes:
        for i, size in enumerate(sizes):
            name = "class_map" if len(sizes) == 1 else f"class_map.{i}"
            arrays[name] = postprocess.class_map(logits[i : i + 1], described, *size)
    elif task == "classification" and logits.ndim == 2:
        scores, indices = top_k(logits, int(case.get("top_k", 5)))
        arrays["topk_scores"], arrays["topk_indices"] = scores.numpy(), indices.numpy()
    return arrays


def scalars(values: list[Any]) -> bool:
    """Whether a list holds numbers or text rather than tensors."""
    return not any(isinstance(v, Tensor) for v in values)


def dump(args: argparse.Namespace) -> None:
    """Runs all cases and writes DIR/ID.npz for each."""
    cases = json.loads(Path(args.cases).read_text(encoding="utf-8"))
    cases = cases["cases"] if isinstance(cases, dict) else cases
    ids = [case["id"] for case in cases]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"{args.cases}: ids are not unique")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    models: dict[tuple[str, str], Model] = {}

    def model_of(path: str, dtype: str) -> Model:
        if (path, dtype) not in models:
            models[path, dtype] = Model(path, getattr(torch, dtype))
        return models[path, dtype]

    index: dict[str, Any] = {}
    for case in cases:
        start = time.perf_counter()
        dtype = case.get("dtype", "float32")
        if dtype not in ("float32", "bfloat16"):
            raise SystemExit(f"{case['id']}: dtype {dtype!r}, want float32 or bfloat16")
        torch.set_num_threads(int(case.get("threads", 1)))
        head = model_of(case["head"], dtype) if case.get("head") else None
        try:
            arrays = run_case(case, model_of(case["model"], dtype), head)
        except Exception as error:
            if not case.get("error"):
                raise RuntimeError(f"case {case['id']} failed") from error
            (out / f"{case['id']}.txt").write_text(str(error), encoding="utf-8")
            index[case["id"]] = {"error": str(error).strip().splitlines()[-1]}
            continue
        part = out / f".{case['id']}.part"
        with open(part, "wb") as stream:
            np.savez(stream, **arrays)
        os.replace(part, out / f"{case['id']}.npz")
        seconds = round(time.perf_counter() - start, 3)
        index[case["id"]] = {"seconds": seconds, "outputs": list(arrays)}
        if args.verbose:
            print(f"{case['id']}: {seconds} s", file=sys.stderr)
    facts = {
        "torch": torch.__version__,
        "cpu_vendor": modelfile.cpu_vendor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cases": index,
    }
    (out / "index.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in (
        ("classify", classify),
        ("detect", detect),
        ("segment", segment),
        ("attend", attend),
    ):
        sub = commands.add_parser(name, help=(function.__doc__ or "").rstrip("."))
        sub.add_argument("model", help="model file")
        sub.add_argument("images", nargs="+", help="image files")
        sub.add_argument("--json", action="store_true", help="one JSON object for each image")
        sub.add_argument("--threads", type=int, default=1, help="threads (default 1)")
        if name == "classify":
            sub.add_argument("--top", type=int, default=5, help="classes to show (default 5)")
        elif name == "detect":
            sub.add_argument("--threshold", type=float, help="lowest score (default: the file's)")
        elif name == "segment":
            sub.add_argument("--head", help="a segmentation head's file; MODEL is then a ViT's")
        else:
            sub.add_argument("--block", type=int, default=-1, help="block (default -1, the last)")
        sub.set_defaults(run=function)
    sub = commands.add_parser("dump", help="write raw outputs of a list of cases as npz")
    sub.add_argument("--cases", required=True, help="JSON list of cases")
    sub.add_argument("--out", required=True, help="folder for ID.npz")
    sub.add_argument("--verbose", action="store_true", help="say the time of each case on stderr")

    args = parser.parse_args()
    if args.command == "dump":
        dump(args)
        return
    torch.set_num_threads(args.threads)
    args.run(args, Model(args.model))


if __name__ == "__main__":
    main()
