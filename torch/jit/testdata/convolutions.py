"""Writes a TorchScript module of convolutions, an input, and its answer in channels_last.

.venv/bin/python torch/jit/testdata/convolutions.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch.nn.functional as F

import torch
from torch import Tensor, nn


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3, padding=1)
        self.b = nn.Conv2d(32, 8, 3, stride=2)
        self.one, self.each = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.register_buffer("table", torch.randn(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.each(self.one(self.b(F.relu(self.a(x))))) * self.table

    @torch.jit.export
    def waits(self, x: Tensor) -> Tensor:
        """What comes next depends on a number, for which the processor waits."""
        return x + 1 if bool(x.sum() > 0) else x - 1


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(7)
    module = torch.jit.script(Convolutions().eval())
    module.save(str(folder / "convolutions.pt"))
    x = torch.randn(2, 3, 37, 41)
    np.save(folder / "input.npy", x.numpy())
    module = module.to(memory_format=torch.channels_last)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    strides = {name: t.stride() for name, t in named.items()}
    (folder / "strides.json").write_text(json.dumps(strides))
    with torch.inference_mode():
        answer = module(x)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    np.save(folder / "answer.npy", answer.contiguous().numpy())


if __name__ == "__main__":
    main()
