"""Writes what PyTorch and NumPy say in this run, for the tests of package torch to compare with.

.venv/bin/python torch/testdata/reference.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
FLOATS = ("float16", "bfloat16", "float32", "float64")
SHAPES = [(), (1,), (5,), (0,), (0, 3), (2, 0, 4), (3, 4), (2, 3, 4), (1, 1, 1), (30,), (2, 30), (7, 7)]
LARGE = [(1001,), (1000,), (40, 30), (7, 200), (6, 200), (3, 20, 30), (2, 2, 7, 40), (1, 3, 224, 224)]


def array(t: torch.Tensor) -> np.ndarray:
    return (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy()


def random_tensor(shape: tuple[int, ...], name: str, scale: float = 1.0) -> torch.Tensor:
    dtype = DTYPES[name]
    if name == "bool":
        return torch.rand(shape) < 0.5
    if name in FLOATS:
        return (torch.randn(shape, dtype=torch.float64) * scale).to(dtype)
    info = torch.iinfo(dtype)
    return torch.randint(max(info.min, -(2**40)), min(info.max, 2**40), shape, dtype=torch.int64).to(
        dtype
    )


def printing() -> list[torch.Tensor]:
    torch.manual_seed(7)
    out = [random_tensor(s, d) for d in DTYPES for s in SHAPES]
    out += [random_tensor(s, d) for d in ("float32", "int64", "bool", "float16", "int8") for s in LARGE]
    # Plain or scientific, wide or narrow.
    for scale in (1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e8, 1e12, 1e30):
        for name in ("float32", "float64", "bfloat16"):
            out.append(random_tensor((3, 5), name, scale))
    special = [
        [float("nan")],
        [float("inf"), float("-inf"), float("nan")],
        [1.0, float("nan"), float("inf")],
        [1.5, float("nan"), float("-inf")],
        [0.0, -0.0],
        [-0.0, 1.0],
        [1e-45, 1.0],
        [1e10, 1.0],
        [1e8, 2e8],
        [1e8 + 8, 1.0],
        [1000.0, 1.0],
        [1001.0, 1.0],
        [1e-4, 1e-2],
        [9e-5, 1e-2],
        [0.5],
        [123456.0],
        [99999.99],
        [1e-5],
        [3.4e38, -3.4e38],
        [1e-38, float("nan")],
        [2.5, 3.5, -1.0],
        [0.00005, 0.5],
    ]
    for values in special:
        for name in FLOATS:
            out.append(torch.tensor(values, dtype=torch.float64).to(DTYPES[name]))
    out += [torch.tensor(v, dtype=torch.float64) for v in (0.0, 1.0, -1.5, 1e300, 1e-300, 1 / 3)]
    out += [torch.tensor(v) for v in (True, 7, -(2**63), 2**63 - 1, float("nan"), float("inf"), 1e-5)]
    out += [torch.tensor([2**63 - 1, -(2**63), 0]), torch.tensor([2**53 + 1])]
    # The last line has, or has not, room for the suffix.
    for n in range(6, 30):
        out.append(torch.arange(n, dtype=torch.int16))
        out.append(torch.full((n,), 0.25, dtype=torch.float64))
        out.append(torch.zeros((1,) * 3 + (n,), dtype=torch.uint8))
    out.append(torch.zeros(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, dtype=torch.int16))
    out += [torch.randn(3, requires_grad=True), torch.randn(3, dtype=torch.float64, requires_grad=True)]
    return out


def place(bits: np.ndarray) -> np.ndarray:
    """Bits of floats as integers in the order of the numbers."""
    signed = bits.astype(object)
    sign = 1 << (bits.dtype.itemsize * 8 - 1)
    return np.array([-(int(b) & (sign - 1)) if int(b) & sign else int(b) for b in signed], dtype=object)


def differences(arrays: dict[str, np.ndarray]) -> list[dict]:
    rng = np.random.default_rng(5)
    out = []
    for dtype, unsigned in (("float32", "u4"), ("float64", "u8"), ("float16", "u2")):
        for k in range(4):
            a = rng.standard_normal(200).astype(dtype)
            b = a.copy()
            if k > 0:
                at = rng.integers(0, 200, 3 * k)
                b[at] = np.nextafter(b[at], np.dtype(dtype).type(np.inf))
            if k > 1:
                b[at[0]] = -b[at[0]]
            if k > 2:
                a[0], b[0] = 0.0, -0.0
            name = f"{dtype}.{k}"
            arrays[name + ".a"], arrays[name + ".b"] = a, b
            bits = a.view(unsigned) != b.view(unsigned)
            distance = np.abs(place(a.view(unsigned)) - place(b.view(unsigned)))
            out.append(
                {
                    "name": name,
                    "max_abs": float(np.abs(a.astype("f8") - b.astype("f8")).max()),
                    "max_ulp": int(distance.max()),
                    "different": int(bits.sum()),
                    "at": int(np.argmax(bits)) if bits.any() else -1,
                    "close": [
                        bool(np.allclose(a, b, rtol=r, atol=t)) for r, t in ((0, 0), (1e-3, 0), (0, 10))
                    ],
                }
            )
    return out


def main() -> None:
    folder = Path(sys.argv[1])
    arrays: dict[str, np.ndarray] = {}
    texts = []
    for i, t in enumerate(printing()):
        arrays[f"print.{i}"] = array(t)
        texts.append({"dtype": str(t.dtype)[6:], "grad": t.requires_grad, "text": str(t)})

    seeds = []
    for seed in (0, 1, 42, 2**32 + 7, 2**63):
        torch.manual_seed(seed)
        for kind in ("randn", "rand"):
            for dtype in ("float32", "float64", "bfloat16"):
                for shape in ((3,), (16,), (5, 7), (200, 200)):
                    t = getattr(torch, kind)(shape, dtype=DTYPES[dtype])
                    name = f"seed.{len(seeds)}"
                    arrays[name] = array(t)
                    seeds.append({"seed": str(seed), "kind": kind, "dtype": dtype, "shape": list(shape)})

    torch.manual_seed(3)
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    arrays["ops.x"], arrays["ops.y"] = array(x), array(y)
    i = torch.tensor([3, 0, 0])
    ops = {
        "select": x.select(1, -1), "narrow": x.narrow(1, 2, 3), "slice": x[:, 1:6:2], "view": x.view(8, -1),
        "reshape": x.t().reshape(3, 8), "permute": x.permute(1, 0), "transpose": x.transpose(0, 1),
        "flatten": x.flatten(0, -1), "squeeze": x.view(4, 1, 6, 1).squeeze(),
        "squeeze_dims": x.view(4, 1, 6, 1).squeeze((1,)), "unsqueeze": x.unsqueeze(-1),
        "expand": x.unsqueeze(0).expand(2, -1, -1), "detach": x.detach(), "index": x[2, 3],
        "index_select": x.index_select(0, i), "add": x + y, "add_number": x + 2, "sub": x - y,
        "mul": x * 2.5, "div": x / y, "div_int": i / 2, "pow": x**2, "eq": x == x.max(), "ne": x != y,
        "lt": x < y, "le": x <= 0, "gt": x > 0.5, "ge": x >= y, "matmul": x @ y.t(), "mm": x.mm(y.t()),
        "abs": x.abs(), "neg": -x, "exp": x.exp(), "log": x.abs().log(), "sqrt": x.abs().sqrt(),
        "clamp": x.clamp(-0.5, 0.5), "relu": x.relu(), "leaky_relu": torch.nn.functional.leaky_relu(x, 0.1),
        "gelu": torch.nn.functional.gelu(x), "sigmoid": x.sigmoid(), "tanh": x.tanh(),
        "softmax": x.softmax(-1), "log_softmax": x.log_softmax(0), "sum": x.sum(), "sum_dims": x.sum((0,)),
        "mean": x.mean(), "mean_dims": x.mean((0, 1)), "max": x.max(), "min": x.min(),
        "argmax": x.argmax(1), "argmin": x.argmin(0, keepdim=True), "topk_values": x.topk(3, 1)[0],
        "topk_indices": x.topk(3, 1)[1], "stack": torch.stack([x, y], 1), "cat": torch.cat([x, y], -1),
        "arange": torch.arange(0, 5, 0.5), "arange_int": torch.arange(2, 9, 3), "eye": torch.eye(3),
        "eye_bool": torch.eye(2, dtype=torch.bool),
    }  # fmt: skip
    for name, t in ops.items():
        arrays["op." + name] = array(t.contiguous())

    facts = {
        "print": texts,
        "seeds": seeds,
        "differences": differences(arrays),
        "ops": sorted(ops),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "version": torch.__version__,
    }
    np.savez(folder / "arrays.npz", **arrays)
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
