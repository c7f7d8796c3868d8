"""Times forwards: Go's precisions beside PyTorch, ONNX Runtime and OpenVINO, on the same model.

    .venv/bin/python scripts/bench_forward.py --engines torchscript go-exact go-fast
    .venv/bin/python scripts/bench_forward.py --models vit_tiny_patch16_224 --rounds 5

ONNX Runtime and OpenVINO take part where their packages are there: pip install onnx onnxruntime
openvino. An engine that does not start is left out, which is said. Each engine is a process of
its own that loads the model, answers once, and then waits for its turn; the rounds go through the
engines in turn, in an order that changes, on the same cores. The table has the median time of a
forward, its ratio to PyTorch's eager mode within the rounds, the largest difference of the answer
from eager's relative to the answer's range, the time from the start of the process to its first
answer, and the peak of resident memory. Models are timm's, with random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
ENGINES = (
    "eager", "torchscript", "compile", "eager-bf16", "onnxruntime", "openvino", "openvino-bf16",
    "go-exact", "go-fast", "go-fast-mkl", "go-bfloat16",
)  # fmt: skip

Forward = Callable[[], np.ndarray]


def make_model(name: str) -> Any:
    """The model with weights that are the same in every process, and a head that is not zero."""
    import timm
    import torch

    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False).eval()
    torch.nn.init.normal_(model.head.weight, std=0.05)
    return model


def load_torch(engine: str, settings: dict[str, Any]) -> Forward:
    """PyTorch: eager, torchscript, compile, eager-bf16."""
    import torch

    torch.set_num_threads(settings["threads"])
    x = torch.from_numpy(np.load(settings["input"]))
    if engine == "torchscript":
        model = torch.jit.load(settings["model"]).eval()
    else:
        model = make_model(settings["name"])
    if engine == "compile":
        model = torch.compile(model)
    if engine.endswith("bf16"):
        model, x = model.bfloat16(), x.bfloat16()

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return model(x).float().numpy()

    return forward


def load_onnxruntime(settings: dict[str, Any]) -> Forward:
    """ONNX Runtime on the file that export_onnx wrote."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    session = onnxruntime.InferenceSession(
        settings["onnx"], options, providers=["CPUExecutionProvider"]
    )
    x = np.load(settings["input"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def load_openvino(settings: dict[str, Any], precision: str) -> Forward:
    """OpenVINO on the same ONNX file."""
    import openvino

    x = np.load(settings["input"])
    compiled = openvino.Core().compile_model(
        settings["onnx"],
        "CPU",
        {
            "INFERENCE_NUM_THREADS": settings["threads"],
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    return lambda: request.infer([x])[0].copy()


def work(settings: dict[str, Any]) -> None:
    """The process of a Python engine: the protocol of internal/forwardbench."""
    begun = settings["begun"]
    engine = settings["engine"]
    if engine == "onnxruntime":
        forward = load_onnxruntime(settings)
    elif engine.startswith("openvino"):
        forward = load_openvino(settings, "bf16" if engine.endswith("bf16") else "f32")
    else:
        forward = load_torch(engine, settings)
    np.save(settings["output"], forward())
    print(time.time() - begun, peak(), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            forward()
        print(time.perf_counter() - start, peak(), flush=True)


def peak() -> float:
    """The peak of resident memory in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Worker:
    """An engine's process."""

    def __init__(self, engine: str, settings: dict[str, Any], program: Path) -> None:
        self.engine = engine
        self.output = settings["output"] = f"{settings['folder']}/{engine}.npy"
        if engine.startswith("go-"):
            precision = engine.removeprefix("go-").removesuffix("-mkl")
            asked = {k: settings[k] for k in ("model", "input", "output", "threads")}
            asked |= {"precision": precision, "mkl_fast": engine.endswith("-mkl")}
            command = [str(program), json.dumps(asked)]
        else:
            asked = settings | {"engine": engine, "begun": time.time()}
            command = [sys.executable, __file__, "--worker", json.dumps(asked)]
        environment = os.environ | {"OMP_NUM_THREADS": str(settings["threads"])}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.first, self.peak = self.answer()
        self.times: list[float] = []

    def answer(self) -> tuple[float, float]:
        """The next line: seconds, and megabytes."""
        assert self.process.stdout is not None
        fields = self.process.stdout.readline().split()
        if len(fields) != 2:
            raise RuntimeError(f"{self.engine}: got no answer")
        return float(fields[0]), float(fields[1])

    def run(self, count: int) -> float:
        """Seconds of a forward, the mean of count."""
        assert self.process.stdin is not None
        print(count, file=self.process.stdin, flush=True)
        seconds, self.peak = self.answer()
        return seconds / count

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def prepare(name: str, batch: int, folder: Path, onnx: bool) -> dict[str, Any]:
    """Writes the model as TorchScript, and as ONNX where an engine takes it, and an input."""
    import torch

    model = make_model(name)
    torch.manual_seed(2)
    x = torch.randn(batch, *model.default_cfg["input_size"])
    np.save(folder / "input.npy", x.numpy())
    torch.jit.script(model).save(str(folder / "model.pt"))
    if onnx:
        with torch.inference_mode():
            torch.onnx.export(
                model, (x,), str(folder / "model.onnx"), dynamo=False, opset_version=17
            )
    files = {"model": "model.pt", "onnx": "model.onnx", "input": "input.npy"}
    return {"name": name, "folder": str(folder)} | {k: str(folder / v) for k, v in files.items()}


def compare(
    settings: dict[str, Any], engines: list[str], rounds: int, program: Path
) -> list[dict[str, Any]]:
    """Times the engines in turn."""
    workers: list[Worker] = []
    for engine in engines:
        try:
            workers.append(Worker(engine, dict(settings), program))
        except (RuntimeError, OSError) as error:
            print(f"{engine} left out: {error}", file=sys.stderr)
    count = max(1, round(0.5 / workers[0].run(3)))
    for k in range(rounds + 1):
        for worker in workers[k % len(workers) :] + workers[: k % len(workers)]:
            seconds = worker.run(count)
            if k > 0:  # the first round settles executors and caches
                worker.times.append(seconds)
    want = np.load(workers[0].output)
    base = workers[0].times
    rows = []
    for worker in workers:
        worker.close()
        difference = np.abs(np.load(worker.output) - want).max() / np.ptp(want)
        rows.append(
            {
                "engine": worker.engine,
                "ms": 1e3 * statistics.median(worker.times),
                "ratio": statistics.median(t / b for t, b in zip(worker.times, base)),
                "difference": float(difference),
                "first": worker.first,
                "peak": worker.peak,
            }
        )
    return rows


def main() -> None:
    """Prints a table for each model and batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--batch", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.worker))
        return
    engines = ["eager"] + [e for e in args.engines if e != "eager"]
    for name in args.models:
        for batch in args.batch:
            with tempfile.TemporaryDirectory() as folder:
                program = Path(folder) / "forwardbench"
                subprocess.run(
                    ["go", "build", "-o", str(program), "./internal/forwardbench"],
                    cwd=ROOT,
                    check=True,
                )
                onnx = any(e.startswith(("onnx", "openvino")) for e in engines)
                settings = prepare(name, batch, Path(folder), onnx) | {"threads": args.threads}
                rows = compare(settings, engines, args.rounds, program)
            print(f"\n{name}, batch {batch}, {args.threads} threads, {args.rounds} rounds")
            print("| engine | ms | of eager | difference / range | first answer, s | peak, MB |")
            print("|---|---|---|---|---|---|")
            for r in rows:
                print(
                    f"| {r['engine']} | {r['ms']:.1f} | {r['ratio']:.2f} | {r['difference']:.1e} "
                    f"| {r['first']:.2f} | {r['peak']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
