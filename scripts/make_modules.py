"""Makes testdata/modules: tiny TorchScript modules, one for each thing the boundary meets.

    .venv/bin/python scripts/make_modules.py

testdata/modules/README.md says what each takes and gives; the checks below hold it to that.
Files are a few kilobytes each and are written whole.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import modelfile

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata" / "modules"


class Identity(nn.Module):
    """Returns its input: the same tensor, not a copy."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Answer(nn.Module):
    """Takes nothing and gives 42."""

    def forward(self) -> Tensor:
        return torch.full([1], 42.0)


class Add(nn.Module):
    """x * 2 + y + 42."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * 2.0 + y + 42.0


class Tuples(nn.Module):
    """(x, x + 1)."""

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x, x + 1


class Nested(nn.Module):
    """A tuple of a list of tuples, a dict of lists, and a tuple with scalars and none."""

    def forward(
        self, x: Tensor
    ) -> Tuple[
        List[Tuple[Tensor, int]], Dict[str, List[Tensor]], Tuple[bool, float, str, Optional[Tensor]]
    ]:
        pairs = [(x, 1), (x * 2, 2)]
        lists = {"a": [x, x + 1], "b": [x - 1]}
        return pairs, lists, (True, 0.5, "deep", None)


class Detections(nn.Module):
    """The shape of a scripted detector's answer: (losses, [{boxes, labels, scores}, ...])."""

    def forward(
        self, images: List[Tensor], targets: Optional[List[Dict[str, Tensor]]] = None
    ) -> Tuple[Dict[str, Tensor], List[Dict[str, Tensor]]]:
        losses: Dict[str, Tensor] = {}
        found: List[Dict[str, Tensor]] = []
        for i, image in enumerate(images):
            height, width = float(image.shape[-2]), float(image.shape[-1])
            found.append(
                {
                    "boxes": torch.tensor([[0.0, 0.0, width, height]]),
                    "labels": torch.tensor([i + 1]),
                    "scores": image.mean().reshape(1),
                }
            )
        if targets is not None:
            losses["count"] = torch.tensor(float(len(targets)))
        return losses, found


class Scalars(nn.Module):
    """One method for each scalar: they take one and give a changed one back."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def bool_(self, v: bool) -> bool:
        return not v

    @torch.jit.export
    def int_(self, v: int) -> int:
        return v + 1

    @torch.jit.export
    def float_(self, v: float) -> float:
        return v * 2.0

    @torch.jit.export
    def str_(self, v: str) -> str:
        return v + "!"

    @torch.jit.export
    def none_(self) -> None:
        return None

    @torch.jit.export
    def describe(self, b: bool, i: int, f: float, s: str) -> str:
        return "{} {} {} {}".format(b, i, f, s)


class Lists(nn.Module):
    """Lists in and out: tensors, bools, ints, floats, strings, nested."""

    def forward(self, x: List[Tensor]) -> Tensor:
        return torch.stack(x).sum(0)

    @torch.jit.export
    def tensors(self, x: List[Tensor]) -> List[Tensor]:
        return [t + 1 for t in x]

    @torch.jit.export
    def bools(self, v: List[bool]) -> List[bool]:
        return [not b for b in v]

    @torch.jit.export
    def ints(self, v: List[int]) -> List[int]:
        return [i * 2 for i in v]

    @torch.jit.export
    def floats(self, v: List[float]) -> List[float]:
        return [f / 2 for f in v]

    @torch.jit.export
    def strings(self, v: List[str]) -> List[str]:
        return [s.upper() for s in v]

    @torch.jit.export
    def nested(self, v: List[List[int]]) -> List[List[int]]:
        return [row + [len(row)] for row in v]

    @torch.jit.export
    def empty(self) -> List[Tensor]:
        out: List[Tensor] = []
        return out


class Dicts(nn.Module):
    """Dictionaries with string and int keys, in and out."""

    def forward(self, x: Dict[str, Tensor]) -> Dict[str, Tensor]:
        out: Dict[str, Tensor] = {}
        for key, value in x.items():
            out[key + "_twice"] = value * 2
        return out

    @torch.jit.export
    def by_int(self, x: Dict[int, Tensor]) -> Dict[int, Tensor]:
        out: Dict[int, Tensor] = {}
        for key, value in x.items():
            out[key + 1] = value * float(key)
        return out

    @torch.jit.export
    def lists(self, x: Dict[str, List[Tensor]]) -> Dict[str, Tensor]:
        out: Dict[str, Tensor] = {}
        for key, values in x.items():
            out[key] = torch.stack(values).sum(0)
        return out

    @torch.jit.export
    def numbers(self) -> Dict[str, float]:
        return {"pi": 3.25, "e": 2.75}


class Strings(nn.Module):
    """Text in and out, any Unicode."""

    def forward(self, s: str) -> str:
        return s

    @torch.jit.export
    def greeting(self) -> str:
        return "Grüße, 世界 🌍"

    @torch.jit.export
    def length(self, s: str) -> int:
        return len(s)


class Optionals(nn.Module):
    """Optional arguments with and without defaults."""

    def forward(self, x: Tensor, bias: Optional[Tensor] = None, scale: float = 2.0) -> Tensor:
        x = x * scale
        if bias is not None:
            x = x + bias
        return x

    @torch.jit.export
    def maybe(self, x: Tensor, give: bool) -> Optional[Tensor]:
        if give:
            return x
        return None

    @torch.jit.export
    def ints(self, v: Optional[int]) -> int:
        if v is None:
            return -1
        return v


class Counter(nn.Module):
    """Writes an attribute and a buffer on each call: a module with state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: int = 0
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.total = self.total + x.sum()
        return self.total.clone()

    @torch.jit.export
    def count(self) -> int:
        return self.calls

    @torch.jit.export
    def reset(self) -> None:
        self.calls = 0
        self.total = torch.zeros(1)


class Inner(nn.Module):
    """Raises for negative input."""

    def forward(self, x: Tensor, depth: int) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative value at depth {}".format(depth))
        return x.sqrt()


class Middle(nn.Module):
    """Calls Inner."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def helper(self, x: Tensor, depth: int) -> Tensor:
        return self.inner(x, depth + 1)

    def forward(self, x: Tensor, depth: int) -> Tensor:
        return self.helper(x, depth + 1)


class Raises(nn.Module):
    """Fails deep inside, so that the error has a stack; other methods fail in other ways."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = Middle()

    def forward(self, x: Tensor) -> Tensor:
        return self.middle(x, 1)

    @torch.jit.export
    def shapes(self, x: Tensor) -> Tensor:
        return x @ torch.ones(7, 5)

    @torch.jit.export
    def check(self, x: Tensor) -> Tensor:
        assert x.dim() == 2, "want a matrix"
        return x

    @torch.jit.export
    def index(self, v: List[int], i: int) -> int:
        return v[i]

    @torch.jit.export
    def unicode(self, x: Tensor) -> Tensor:
        if x.numel() > 0:
            raise RuntimeError("größer als erlaubt ✗")
        return x


class Methods(nn.Module):
    """Several methods with several arguments and defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight

    @torch.jit.export
    def scaled(self, x: Tensor, scale: float = 0.5, offset: int = 1) -> Tensor:
        return x * scale + offset

    @torch.jit.export
    def pick(self, x: Tensor, index: int) -> Tensor:
        return x[index]

    @torch.jit.export
    def blocks(self, x: Tensor, indices: List[int]) -> List[Tensor]:
        return [x * i for i in indices]


class DTypes(nn.Module):
    """Buffers of every dtype that a ViT file can hold, and floating parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b_bool", torch.tensor([True, False, True]))
        self.register_buffer("b_uint8", torch.tensor([0, 128, 255], dtype=torch.uint8))
        self.register_buffer("b_int8", torch.tensor([-128, 0, 127], dtype=torch.int8))
        self.register_buffer("b_int16", torch.tensor([-32768, 0, 32767], dtype=torch.int16))
        self.register_buffer("b_int32", torch.tensor([-(2**31), 0, 2**31 - 1], dtype=torch.int32))
        self.register_buffer("b_int64", torch.tensor([-(2**63), 0, 2**63 - 1], dtype=torch.int64))
        for name, dtype in FLOATS.items():
            self.register_buffer("b_" + name, torch.tensor([-1.5, 0.0, 0.1], dtype=dtype))
            self.register_parameter(
                "p_" + name, nn.Parameter(torch.tensor([[0.25, -2.0]], dtype=dtype))
            )

    def forward(self, x: Tensor) -> List[Tensor]:
        return [
            self.b_bool, self.b_uint8, self.b_int8, self.b_int16, self.b_int32, self.b_int64,
            self.b_float16, self.b_bfloat16, self.b_float32, self.b_float64,
        ]  # fmt: skip

    @torch.jit.export
    def cast(self, x: Tensor) -> List[Tensor]:
        return [
            x.to(torch.bool), x.to(torch.uint8), x.to(torch.int8), x.to(torch.int16),
            x.to(torch.int32), x.to(torch.int64), x.to(torch.float16), x.to(torch.bfloat16),
            x.to(torch.float32), x.to(torch.float64),
        ]  # fmt: skip


FLOATS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


class Norm(nn.Module):
    """Batch norm and dropout: train and eval differ."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout(0.5)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
            self.norm.running_var.copy_(torch.tensor([4.0, 9.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(x))


class Attributes(nn.Module):
    """Plain attributes of each kind."""

    nothing: Optional[int]

    def __init__(self) -> None:
        super().__init__()
        self.flag: bool = True
        self.count: int = 7
        self.ratio: float = 0.25
        self.name: str = "attributes"
        self.sizes: List[int] = [2, 3, 4]
        self.table: Dict[str, int] = {"a": 1, "b": 2}
        self.nothing = None
        self.linear = nn.Linear(2, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(2))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.count


class Point(NamedTuple):
    """A named tuple of tensors."""

    x: Tensor
    y: Tensor


class NamedTuples(nn.Module):
    """A named tuple out: its fields are in place order."""

    def forward(self, x: Tensor) -> Point:
        return Point(x, -x)


@torch.jit.script
class Box:
    """A TorchScript class: a value kind that the boundary does not map."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Unsupported(nn.Module):
    """Values that have no place in Go, one for each method."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def device(self, x: Tensor) -> torch.device:
        return x.device

    @torch.jit.export
    def complex_(self, x: Tensor) -> complex:
        return 1 + 2j

    @torch.jit.export
    def complex_tensor(self, x: Tensor) -> Tensor:
        return torch.complex(x, x)

    @torch.jit.export
    def object(self, x: Tensor) -> Box:
        return Box(x)

    @torch.jit.export
    def nested(self, x: Tensor) -> List[torch.device]:
        return [x.device]

    @torch.jit.export
    def sparse(self, x: Tensor) -> Tensor:
        return x.to_sparse()


class Memory(nn.Module):
    """Views and layouts that a reader must take care with."""

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        expanded = x.reshape(-1)[:1].expand(3, 1)
        return x.transpose(-1, -2), x[..., 1:], expanded, torch.empty(0, 3)

    @torch.jit.export
    def add_(self, x: Tensor, value: float) -> Tensor:
        return x.add_(value)

    @torch.jit.export
    def alias(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x, x


class Slow(nn.Module):
    """Busy for a while: n products of two 256 x 256 matrices."""

    def forward(self, x: Tensor, n: int) -> Tensor:
        y = x
        for _ in range(n):
            y = (y @ x).clamp(-1, 1)
        return y


class Suppress(nn.Module):
    """Needs torchvision's operators."""

    def forward(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        return torch.ops.torchvision.nms(boxes, scores, threshold)

    @torch.jit.export
    def pool(self, x: Tensor, rois: Tensor) -> Tensor:
        return torch.ops.torchvision.roi_align(x, rois, 0.5, 3, 2, 2, True)


class Linears(nn.Module):
    """What a rewrite for speed must tell apart: what follows a linear layer, and what may not be
    fused into it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.both_halves = nn.Parameter(torch.randn(16, 8) / 3)
        self.gamma = nn.Parameter(torch.randn(8))
        self.patch = nn.Conv2d(3, 8, (2, 3), (2, 3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """A block: (B, 3, H, W) -> (B, N, 8)."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        q = self.a(x)
        mixed = ((q * 0.5) @ q.transpose(-2, -1)).softmax(dim=-1) @ q
        x = x + self.gamma * self.drop(self.b(mixed))
        return self.a(F.gelu(self.b(x))) + x

    @torch.jit.export
    def activations(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        y = self.a(x)
        return (
            F.gelu(self.a(x), approximate="tanh"),
            F.silu(self.b(x)),
            F.relu(y, inplace=True),
            F.sigmoid(self.b(2 * x)),
        )

    @torch.jit.export
    def both(self, x: Tensor) -> Tensor:
        """Two layers of which one is the other's residual, and both could be."""
        return self.a(x) + self.b(x)

    @torch.jit.export
    def broadcast(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Sums that are larger than the layer's output, or whose other side is smaller."""
        return x + self.a(x[:, :1]), self.b(x) + x.mean(1, keepdim=True), self.a(x) + self.gamma

    @torch.jit.export
    def promoted(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Sums with another dtype; in place it stays float32."""
        return self.a(x) + x.double(), self.a(2 * x).add_(x.double())

    @torch.jit.export
    def kept(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """A layer's output that is used twice."""
        y = self.a(x)
        return F.gelu(y), y

    @torch.jit.export
    def written(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Its input is written before the activation, its output after."""
        z = x.clone()
        y = self.a(z)
        z.add_(1.0)
        first = F.gelu(y)
        w = self.b(x)
        w.mul_(2.0)
        return first, w + z

    @torch.jit.export
    def scaled(self, x: Tensor) -> Tensor:
        return self.a(x).mul_(self.gamma) + 2 * x

    @torch.jit.export
    def halves(self, x: Tensor) -> Tensor:
        """Views of one weight, which begin where the whole begins."""
        first, second = self.both_halves.chunk(2)
        whole = F.linear(x, self.both_halves)
        return torch.cat([F.linear(x, first), F.linear(x, second), whole], dim=-1)

    @torch.jit.export
    def weights(self, q: Tensor) -> Tuple[Tensor, Tensor]:
        """Attention whose weights are wanted."""
        p = (q @ q.transpose(-2, -1) / 3.0).softmax(-1)
        return p @ q, p

    @torch.jit.export
    def attention(self, q: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Attention by a quotient; a softmax over another dimension, which it is not; and as
        transformers writes it."""
        k = q.transpose(-2, -1)
        single = ((q + 1.0) @ k * 0.25).softmax(-1, dtype=torch.float32).to(torch.float32)
        return (q @ k / 3.0).softmax(-1) @ q, (k @ q).softmax(-2) @ k, single @ q

    @torch.jit.export
    def one(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Queries, keys and values of one layer; what comes of them goes to a layer, or is an
        answer."""
        y, z = self.a(x).unsqueeze(1), self.b(x).unsqueeze(1)
        single = (y @ y.transpose(-2, -1) * 0.25).softmax(-1, dtype=torch.float32)
        return self.b((single @ y).squeeze(1)), (z @ z.transpose(-2, -1)).softmax(-1) @ z

    @torch.jit.export
    def separate(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Queries, keys and values of three layers, of which the queries alone are scaled."""
        q, k, v = self.a(x).unsqueeze(1) * 0.5, self.b(x).unsqueeze(1), self.a(x + 1).unsqueeze(1)
        return F.scaled_dot_product_attention(q, k, v), (q @ k.transpose(-2, -1)).softmax(-1) @ v

    @torch.jit.export
    def vector(self, x: Tensor) -> Tensor:
        return self.a(x[0, 0])

    @torch.jit.export
    def given(self, x: Tensor, weight: Tensor) -> Tensor:
        """A weight that is no constant."""
        return F.gelu(F.linear(x, weight))


class Wide(nn.Module):
    """Layers whose sizes are no multiples of what kernels work in: (..., 800) -> (..., 30)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.a, self.b, self.c = nn.Linear(800, 30), nn.Linear(30, 53), nn.Linear(53, 30)
        self.one = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.a(x))
        return self.c(F.relu(self.b(h))) + h

    @torch.jit.export
    def spread(self, x: Tensor) -> Tensor:
        """One bias for all outputs."""
        return F.linear(x, self.a.weight, self.one)


class Conv3x3(nn.Module):
    """Convolutions of 3x3 that a rewrite may replace, and others: (B, 64, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.weight = nn.Parameter(torch.randn(72, 64, 3, 3) / 24)
        self.bias = nn.Parameter(torch.randn(72))
        self.norm = nn.BatchNorm2d(72)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.traced = torch.jit.trace(nn.Conv2d(64, 64, 3, padding=1), torch.rand(1, 64, 5, 6))
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        """Two layers of a head, and a third of the first one's weight."""
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        y = F.conv2d(F.relu(self.norm(y), inplace=True), self.weight.transpose(0, 1))
        return y + F.conv2d(x, self.weight[:64])

    @torch.jit.export
    def activations(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        w, b = self.weight, self.bias
        y = F.conv2d(x, w, b, padding=1)
        first = F.gelu(F.conv2d(x, w, b, padding=1))
        second = F.silu(F.conv2d(x, w, b, padding=(2, 0)))
        return first, second, torch.relu_(y), torch.sigmoid(self.traced(x))

    @torch.jit.export
    def paddings(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """One weight with three paddings."""
        w, b = self.weight, self.bias
        return F.conv2d(x, w, b), F.conv2d(x, w, b, padding=1), F.conv2d(x, w, b, padding=(0, 3))

    @torch.jit.export
    def left(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What stays: strides, dilations, groups, few channels. Reflection is a step before."""
        w = self.weight
        return (
            F.conv2d(x, w, stride=2, padding=1),
            F.conv2d(x, w, dilation=2),
            F.conv2d(x, w[:, :32], groups=2),
            F.conv2d(x, w[:60]),
            F.conv2d(x.narrow(-3, 0, 56), w[:, :56]),
            F.conv2d(F.pad(x, [1, 1, 1, 1], mode="reflect"), w),
        )

    @torch.jit.export
    def tokens(self, x: Tensor) -> Tensor:
        """Linear layers before, as in a head on tokens."""
        y = F.gelu(self.linear(x.flatten(2).transpose(1, 2)))
        return self.traced(self.linear(y).transpose(1, 2).reshape(x.shape))

    @torch.jit.export
    def viewed(self, x: Tensor) -> Tensor:
        """A view that only some strides allow."""
        y = F.conv2d(x, self.weight, padding=1)
        return y.view(y.size(0), 8, -1) if x.is_contiguous() else y.flatten(2)

    @torch.jit.export
    def given(self, x: Tensor, weight: Tensor) -> Tensor:
        """A weight that is no constant."""
        return F.conv2d(x, weight, padding=1)


EXTRA = {"labels.json": '["cat","dog"]', "note.txt": "Grüße\n", "blob.bin": bytes(range(256))}

MODULES: Dict[str, Callable[[], nn.Module]] = {
    "identity": Identity,
    "answer": Answer,
    "add": Add,
    "tuple": Tuples,
    "nested": Nested,
    "detections": Detections,
    "scalars": Scalars,
    "lists": Lists,
    "dicts": Dicts,
    "strings": Strings,
    "optionals": Optionals,
    "counter": Counter,
    "raises": Raises,
    "methods": Methods,
    "dtypes": DTypes,
    "norm": Norm,
    "attributes": Attributes,
    "namedtuple": NamedTuples,
    "unsupported": Unsupported,
    "memory": Memory,
    "slow": Slow,
    "nms": Suppress,
    "linears": Linears,
    "wide": Wide,
    "conv3x3": Conv3x3,
    "extra": Identity,
}


def fails(call: Callable[[], object], text: str) -> None:
    """Checks that a call raises and that its message holds text."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  any kind will do
        assert text in str(error), f"want {text!r} in {error}"
        return
    raise AssertionError(f"want an error with {text!r}")


def check(out: Path) -> None:
    """Holds the files to what README.md says."""
    load = {name: torch.jit.load(str(out / f"{name}.pt")) for name in MODULES}
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert load["identity"](x).data_ptr() == x.data_ptr()
    assert load["answer"]().tolist() == [42.0]
    assert load["add"](x, x).tolist() == [[45.0, 48.0], [51.0, 54.0]]
    first, second = load["tuple"](x)
    assert first.equal(x) and second.equal(x + 1)
    pairs, lists, rest = load["nested"](x)
    assert pairs[1][1] == 2 and pairs[1][0].equal(x * 2)
    assert sorted(lists) == ["a", "b"] and rest == (True, 0.5, "deep", None)
    losses, found = load["detections"]([torch.ones(3, 4, 6)])
    assert losses == {} and found[0]["boxes"].tolist() == [[0.0, 0.0, 6.0, 4.0]]
    scalars = load["scalars"]
    assert scalars.bool_(True) is False and scalars.int_(2**62) == 2**62 + 1
    assert scalars.float_(0.25) == 0.5 and scalars.str_("a") == "a!" and scalars.none_() is None
    assert scalars.describe(True, 3, 0.5, "x") == "True 3 0.5 x"
    assert load["lists"]([x, x]).equal(x * 2)
    assert load["lists"].nested([[5, 6], []]) == [[5, 6, 2], [0]]
    assert load["dicts"]({"a": x})["a_twice"].equal(x * 2)
    assert load["dicts"].by_int({3: x})[4].equal(x * 3)
    assert load["strings"].greeting() == "Grüße, 世界 🌍"
    assert load["optionals"](x).equal(x * 2) and load["optionals"].maybe(x, False) is None
    counter = load["counter"]
    assert counter(x).item() == 10 and counter(x).item() == 20 and counter.count() == 2
    fails(lambda: load["raises"](-x), "negative value at depth 3")
    fails(lambda: load["raises"].shapes(x), "cannot be multiplied")
    fails(lambda: load["raises"].index([1], 5), "index out of range")
    assert load["methods"](x).tolist() == [[7.0, 10.0], [15.0, 22.0]]
    assert load["methods"].scaled(x).tolist() == [[1.5, 2.0], [2.5, 3.0]]
    assert len(load["dtypes"](x)) == 10 and len(load["dtypes"].cast(x)) == 10
    norm = load["norm"]
    assert not norm.training and torch.allclose(norm(x)[0], torch.tensor([0.0, 0.0]), atol=1e-4)
    assert load["attributes"](x).equal(x * 7)
    assert load["namedtuple"](x).y.equal(-x)
    assert str(load["unsupported"].device(x)) == "cpu"
    assert load["unsupported"].complex_(x) == 1 + 2j
    assert load["memory"](x)[3].shape == (0, 3)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    kept = load["nms"](boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    assert kept.tolist() == [1, 2]
    linears = load["linears"]
    photos = torch.randn(2, 3, 5, 7)
    assert linears(photos).shape == (2, 4, 8) and linears(photos).std() > 0.1
    assert linears.halves(torch.randn(2, 4, 8)).shape == (2, 4, 32)
    assert load["wide"](torch.randn(2, 800)).shape == (2, 30)
    assert load["conv3x3"](torch.randn(2, 64, 5, 7)).shape == (2, 64, 3, 5)
    extra = dict.fromkeys(EXTRA, "")
    torch.jit.load(str(out / "extra.pt"), _extra_files=extra)
    got = extra["blob.bin"]
    assert (got if isinstance(got, bytes) else got.encode()) == EXTRA["blob.bin"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default %(default)s)")
    out = parser.parse_args().out
    import torchvision  # noqa: F401  registers nms

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as tmp:
        for name, module in MODULES.items():
            with modelfile.portable_sources():
                scripted = torch.jit.script(module().eval())
            part = Path(tmp) / f"{name}.pt"
            scripted.save(str(part), _extra_files=EXTRA if name == "extra" else {})
        check(Path(tmp))
        for name in MODULES:
            shutil.move(str(Path(tmp) / f"{name}.pt"), out / f"{name}.pt")
    print(f"{out}: {len(MODULES)} modules")


if __name__ == "__main__":
    main()
