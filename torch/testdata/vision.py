"""Write torchvision's operators with their gradients, and in autocast: cases.json and arrays.npz in a folder.

python torch/testdata/vision.py DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

CASES: list[dict[str, Any]] = []
ARRAYS: dict[str, np.ndarray] = {}


def put(name: str, value: Tensor) -> None:
    """Notes a tensor; NumPy has no bfloat16."""
    value = value.detach()
    ARRAYS[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def add(name: str, leaves: list[int], args: list[Any]) -> None:
    """Runs an operator, once as it is and once on bfloat16 in autocast, and goes back from its
    first result to those of its arguments that are leaves."""
    run = getattr(torch.ops.torchvision, name)
    # On the CPU, autocast casts for these two alone.
    for autocast in (False, True) if name in ("nms", "roi_align") else (False,):
        key = f"{name}-{autocast}"
        given: list[Any] = []
        for i, a in enumerate(args):
            if isinstance(a, Tensor):
                put(f"{key}.in.{i}", a)
                a = a.clone().to(torch.bfloat16 if autocast and i in leaves else a.dtype)
                if i in leaves:
                    a.requires_grad_(True)
            given.append(a)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = run(*given)
        results = [out] if isinstance(out, Tensor) else list(out)
        for i, r in enumerate(results):
            put(f"{key}.out.{i}", r)
        if leaves:
            weight = torch.rand(results[0].shape, generator=torch.Generator().manual_seed(9))
            put(f"{key}.weight", weight)
            results[0].backward(weight.to(results[0].dtype))
        for i in leaves:
            put(f"{key}.grad.{i}", given[i].grad)
        CASES.append(
            {
                "Name": key,
                "Op": name,
                "Autocast": autocast,
                "Leaves": leaves,
                "Args": [None if isinstance(a, Tensor) else a for a in args],
                "Outputs": [str(r.dtype).removeprefix("torch.") for r in results],
            }
        )


def main() -> None:
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    assert torchvision.extension._has_ops()
    g = torch.Generator().manual_seed(1)
    low = torch.rand(12, 2, generator=g) * 12
    boxes = torch.cat([low, low + 1 + torch.rand(12, 2, generator=g) * 8], dim=1)
    rois = torch.cat([torch.arange(12)[:, None] % 2, boxes], dim=1)
    x, y = torch.randn(2, 3, 10, 11, generator=g), torch.randn(2, 18, 10, 11, generator=g)
    add("nms", [], [boxes, torch.rand(12, generator=g), 0.3])
    add("roi_align", [0], [x, rois, 0.5, 2, 3, 2, True])
    add("roi_pool", [0], [x, rois, 0.5, 2, 3])
    add("ps_roi_align", [0], [y, rois, 0.5, 2, 3, 2])
    add("ps_roi_pool", [0], [y, rois, 0.5, 2, 3])
    offset, mask = torch.randn(2, 18, 10, 11, generator=g), torch.rand(2, 9, 10, 11, generator=g)
    weight, bias = torch.randn(4, 3, 3, 3, generator=g), torch.randn(4, generator=g)
    plain = [1, 1, 1, 1, 1, 1, 1, 1, True]
    add("deform_conv2d", [0, 1, 2, 3, 4], [x, weight, offset, mask, bias, *plain])
    np.savez(out / "arrays.npz", **ARRAYS)
    (out / "cases.json").write_text(json.dumps(CASES))


if __name__ == "__main__":
    main()
