"""Times in Python what BenchmarkStep times in Go.

.venv/bin/python torch/optim/testdata/steps.py [ROUNDS]
"""

import sys
import time

import torch


def shapes() -> list[tuple[int, ...]]:
    """The parameters of a ViT of width 192 and 6 blocks."""
    out: list[tuple[int, ...]] = [(1, 1, 192), (1, 257, 192), (192, 3, 8, 8), (192,)]
    for _ in range(6):
        out += [(192,), (192,), (576, 192), (576,), (192, 192), (192,)]
        out += [(192,), (192,), (576, 192), (576,), (192, 576), (192,)]
    return [*out, (192,), (192,), (10, 192), (10,)]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    torch.set_num_threads(1)
    parameters = [torch.randn(s, requires_grad=True) for s in shapes()]
    for p in parameters:
        p.grad = p.detach().clone()

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1e9)

    calls = {
        "adamw": torch.optim.AdamW(parameters).step,
        "adamw-fused": torch.optim.AdamW(parameters, fused=True).step,
        "clip": clip,
    }
    for name, call in calls.items():
        call()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        times.sort()
        print(f"{name:12} median {times[len(times) // 2] * 1e3:.2f} ms, best {times[0] * 1e3:.2f}")


if __name__ == "__main__":
    main()
