"""Writes a TorchScript module whose methods change its state in every way the code can hide it.

.venv/bin/python torch/jit/testdata/state.py FILE
"""

import sys
from typing import List

import torch
from torch import Tensor, nn


@torch.jit.script
class Holder:
    def __init__(self, x: Tensor) -> None:
        self.x = x


def bump(x: Tensor) -> None:
    x.add_(1)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inner", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.inner.add_(x)
        return self.inner.clone()


class State(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2))
        self.seen: List[int] = [0]
        self.deep = Deep()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.total

    @torch.jit.export
    def in_place(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return x

    @torch.jit.export
    def through_view(self, x: Tensor) -> Tensor:
        self.total.reshape(2, 1)[0].squeeze().mul_(2)
        return x

    @torch.jit.export
    def through_helper(self, x: Tensor) -> Tensor:
        bump(self.total)
        return x

    @torch.jit.export
    def through_branch(self, x: Tensor, flag: bool) -> Tensor:
        if flag:
            y = self.total
        else:
            y = x.clone()
        y.add_(1)
        return y.clone()

    @torch.jit.export
    def through_loop(self, x: Tensor, n: int) -> Tensor:
        y = x.clone()
        for _ in range(n):
            y.add_(1)
            y = self.total
        return y.clone()

    @torch.jit.export
    def list_append(self, x: Tensor) -> Tensor:
        self.seen.append(x.numel())
        return x

    @torch.jit.export
    def nested(self, x: Tensor) -> Tensor:
        return self.deep(x)

    @torch.jit.export
    def own_tensor(self, x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        for _ in range(3):
            y.mul_(2)
        parts = [y]
        parts.append(x)
        return parts[0]

    @torch.jit.export
    def argument(self, x: Tensor) -> Tensor:
        bump(x)
        return x

    @torch.jit.export
    def object(self, x: Tensor) -> Tensor:
        return Holder(x).x

    @torch.jit.export
    def object_of_state(self, x: Tensor) -> Tensor:
        h = Holder(self.total)
        h.x.add_(1)
        return x

    @torch.jit.export
    def copy_first(self, x: Tensor) -> Tensor:
        y = self.total.clone()
        y.add_(x)
        return y

    @torch.jit.export
    def relu_on_result(self, x: Tensor) -> Tensor:
        return torch.relu_(x + self.total)


torch.jit.script(State()).save(sys.argv[1])
