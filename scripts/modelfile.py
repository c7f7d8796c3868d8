"""Model files: TorchScript with torchvit.json and torchvit.reference.npz inside.

``write`` scripts a model where need be, computes the reference with ``torch.jit.load`` of the saved
file and writes the finished file whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._sources
from torch import Tensor, nn

import preprocess

# TorchScript's deprecation is known; scripted Faster R-CNN tells its return type each time.
warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message="RCNN always returns")

METADATA = "torchvit.json"
REFERENCE = "torchvit.reference.npz"
FORMAT = 1
WARMUP = 3  # the profiling executor settles within the first runs
REFERENCE_BYTES = 3_000_000
FIRST_BYTES = 64_000_000  # of a segmentation model of one fixed size

Value = Any


def load(
    path: str | Path, device: str = "cpu"
) -> tuple[torch.jit.ScriptModule, dict[str, Any], dict[str, np.ndarray]]:
    """Loads a model file; returns the module, its metadata ({} if absent) and reference."""
    import torchvision  # noqa: F401  registers the operators that detection files use

    extra = {METADATA: "", REFERENCE: ""}
    module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    metadata = json.loads(extra[METADATA]) if extra[METADATA] else {}
    arrays: dict[str, np.ndarray] = {}
    if extra[REFERENCE]:
        with np.load(io.BytesIO(as_bytes(extra[REFERENCE]))) as archive:
            arrays = {name: archive[name] for name in archive.files}
    return module, metadata, arrays


def as_bytes(text: str | bytes) -> bytes:
    """torch.jit.load hands extra files out as bytes, or as text where they are UTF-8."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def to_array(tensor: Tensor) -> np.ndarray:
    """A tensor as npy can hold it: bfloat16 becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def flatten(value: Value, name: str = "out") -> dict[str, np.ndarray]:
    """Names the tensors of a value by their place: out, out.0, out.1.0.boxes."""
    if isinstance(value, Tensor):
        return {name: to_array(value)}
    arrays: dict[str, np.ndarray] = {}
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            arrays.update(flatten(item, f"{name}.{i}"))
    elif isinstance(value, dict):
        for key, item in value.items():
            arrays.update(flatten(item, f"{name}.{key}"))
    elif isinstance(value, bool):
        arrays[name] = np.array(value)
    elif isinstance(value, int):
        arrays[name] = np.array(value, np.int64)
    elif isinstance(value, float):
        arrays[name] = np.array(value, np.float64)
    elif value is not None:
        raise TypeError(f"{name}: got a {type(value).__name__}, want tensors and numbers")
    return arrays


def aligned(tensor: Tensor) -> Tensor:
    """A contiguous copy in memory that torch allocated, which is aligned to 64 bytes."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def run(module: nn.Module, method: str, args: list[Value], warmup: int = WARMUP) -> Value:
    """Calls a method under inference mode after warm-up runs; returns the last answer."""
    call = getattr(module, method)
    with torch.inference_mode():
        for _ in range(warmup):
            call(*args)
        return call(*args)


def cpu_vendor() -> str:
    """vendor_id of /proc/cpuinfo, or an empty string."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def noise(shape: list[int], seed: int) -> Tensor:
    """A seeded tensor in -2..2 with 64 levels, so that it compresses well."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-32, 32, shape, generator=generator).float() / 16


def takes_list(metadata: dict[str, Any]) -> bool:
    """Whether forward takes a list of tensors (3, H, W) rather than one (B, 3, H, W): what
    input.layout says, else what torchvision's detectors take."""
    layout = metadata.get("input", {}).get("layout", "")
    if layout:
        return layout == "list"
    kind = metadata.get("output", {}).get("kind", "")
    return metadata.get("task") == "detection" and kind in ("", "detections")


class Reference:
    """Collects calls and their answers for one module."""

    def __init__(self, module: torch.jit.ScriptModule, metadata: dict[str, Any]) -> None:
        self.module, self.spec = module, metadata["preprocess"]
        self.listed = takes_list(metadata)
        self.arrays: dict[str, np.ndarray] = {}
        self.calls: list[dict[str, Any]] = []

    def size(self) -> int:
        """Bytes of the archive that the arrays would make."""
        return len(npz(self.arrays))

    def add(self, method: str, *inputs: Value, limit: int = REFERENCE_BYTES) -> bool:
        """Adds one call, unless the archive would grow past limit.

        inputs: a tensor, a list of tensors, an int, a list of ints, or the bytes of an
        encoded image, which goes through the model's own preprocess.
        """
        prefix = f"c{len(self.calls)}"
        args: list[Value] = []
        described: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for i, value in enumerate(inputs):
            if isinstance(value, bytes):
                name = f"{prefix}.image"
                tensor, _ = preprocess.load_tensor(value, self.spec)
                args.append([tensor] if self.listed else aligned(tensor[None]))
                arrays[name] = np.frombuffer(value, np.uint8)
                described.append({"image": name})
            elif isinstance(value, Tensor):
                name = f"{prefix}.in{i}"
                args.append(aligned(value))
                arrays[name] = to_array(value)
                described.append({"tensor": name})
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                names = [f"{prefix}.in{i}.{j}" for j in range(len(value))]
                args.append([aligned(item) for item in value])
                arrays.update(zip(names, map(to_array, value)))
                described.append({"tensors": names})
            elif isinstance(value, list):
                args.append(value)
                described.append({"ints": value})
            else:
                args.append(value)
                described.append({"int": int(value)})
        outputs = flatten(run(self.module, method, args))
        if not outputs or not any(a.size and np.any(a != 0) for a in outputs.values()):
            raise ValueError(f"{method}: the answer is empty or all zeros, no reference")
        named = {f"{prefix}.{name}": array for name, array in outputs.items()}
        if len(npz({**self.arrays, **arrays, **named})) > limit:
            return False
        self.arrays.update(arrays)
        self.arrays.update(named)
        self.calls.append({"method": method, "inputs": described, "outputs": list(outputs)})
        return True

    def describe(self) -> dict[str, Any]:
        """The "reference" part of torchvit.json."""
        return {
            "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
            "dtype": "float32",
            "cpu_vendor": cpu_vendor(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "atol": 1e-4,
            "rtol": 1e-4,
            "calls": self.calls,
        }


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """The arrays as a compressed npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def replay(path: Path) -> None:
    """Fails unless the file gives the bits of its own reference."""
    module, metadata, arrays = load(path)
    for i, call in enumerate(metadata["reference"]["calls"]):
        args: list[Value] = []
        for value in call["inputs"]:
            if "image" in value:
                data = arrays[value["image"]].tobytes()
                tensor, _ = preprocess.load_tensor(data, metadata["preprocess"])
                listed = takes_list(metadata)
                args.append([tensor] if listed else aligned(tensor[None]))
            elif "tensor" in value:
                args.append(aligned(torch.from_numpy(arrays[value["tensor"]])))
            elif "tensors" in value:
                args.append([aligned(torch.from_numpy(arrays[n])) for n in value["tensors"]])
            else:
                args.append(value["ints"] if "ints" in value else value["int"])
        got = flatten(run(module, call["method"], args, warmup=0))
        for name in call["outputs"]:
            if not np.array_equal(got[name], arrays[f"c{i}.{name}"], equal_nan=True):
                raise SystemExit(f"{path}: {call['method']} {name} does not repeat its own bits")


@contextmanager
def portable_sources() -> Iterator[None]:
    """Lets TorchScript note source files by their place in the project or in
    site-packages, so that a model file does not hold the exporter's own paths."""
    original = torch._sources.get_source_lines_and_file
    roots = [Path(torch.__file__).resolve().parent.parent, Path(__file__).resolve().parent.parent]

    def relative(obj: Any, error_msg: str | None = None) -> Any:
        lines, number, name = original(obj, error_msg)
        for root in roots:
            if name and Path(name).is_absolute() and Path(name).is_relative_to(root):
                return lines, number, str(Path(name).relative_to(root))
        return lines, number, name

    torch._sources.get_source_lines_and_file = relative
    try:
        yield
    finally:
        torch._sources.get_source_lines_and_file = original


def write(
    model: nn.Module,
    path: Path,
    metadata: dict[str, Any],
    calls: list[tuple[Value, ...]],
    more: dict[str, str] | None = None,
    reference_bytes: int = REFERENCE_BYTES,
) -> dict[str, Any]:
    """Scripts the model and writes the finished model file; returns its metadata.

    A model that is scripted or traced already is written as it is.
    calls are (method, input, ...), as Reference.add takes them; those that would make the
    reference larger than reference_bytes are left out, but for the first, which may have 64 MB.
    more are further extra files.
    """
    if path is None:
        return metadata
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    scripted = model
    if not isinstance(model, torch.jit.ScriptModule):
        with portable_sources():
            scripted = torch.jit.script(model)
    # The archive is named after the file, so it is written under its final name.
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    part = folder / path.name
    try:
        scripted.save(str(part))
        loaded, _, _ = load(part)
        reference = Reference(loaded, metadata)
        for i, (method, *inputs) in enumerate(calls):
            limit = reference_bytes if i > 0 else FIRST_BYTES
            if not reference.add(method, *inputs, limit=limit) and i == 0:
                raise ValueError(f"{method}: the first reference call is larger than 64 MB")
        metadata = {
            "format": FORMAT,
            "torch": torch.__version__.split("+")[0],
            **metadata,
            "reference": reference.describe(),
        }
        extra = {
            METADATA: json.dumps(metadata, indent=1, ensure_ascii=False),
            REFERENCE: npz(reference.arrays),
            **(more or {}),
        }
        scripted.save(str(part), _extra_files=extra)
        replay(part)
        os.chmod(part, 0o644)
        os.replace(part, path)
    finally:
        shutil.rmtree(folder)
    return metadata
