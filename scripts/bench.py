"""Times Go beside Python, ONNX Runtime and OpenVINO, and writes a table.

    make bench                                             # all of it, into docs/benchmarks.md
    .venv-bench/bin/python scripts/bench.py --workloads vit_tiny_patch16_224 --rounds 5
    .venv-bench/bin/python scripts/bench.py --engines torchscript go-exact --batch 1
    .venv-bench/bin/python scripts/bench.py --workloads detection --out docs/benchmarks.md --keep
    .venv-bench/bin/python scripts/bench.py --device cuda --batch 1 8 64

Workloads are timm's ViTs by name, segmentation (VisionTransformerForSegmentation, ViT-S/16,
512x512), detection (Faster R-CNN over a ViT-S/16, 640x640), and photo: a JPEG file of 1920x1080 to
the five best classes of ViT-S/16, against Pillow, torchvision's transforms and TorchScript. All
have seeded weights.

Each engine is a process of its own that loads the same file, answers once, and then waits for its
turn; the rounds go through the engines in turn, in an order that changes, on the same cores. An
engine that does not start is left out, which is said. The table has the median time of a call,
its ratio to the first engine's within the rounds, the largest difference of the answer from that
of the first engine relative to its range (of a detector: of its scores in order), the time from the
start of the process to its first answer, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
VITS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
WORKLOADS = (*VITS, "segmentation", "detection", "photo")
#: In the order of the table; the first is what the others are compared with.
ENGINES = (
    "eager", "torchscript", "compile", "eager-bf16", "onnxruntime", "openvino", "openvino-bf16",
    "go-exact", "go-fast", "go-bfloat16",
)  # fmt: skip
CUDA_ENGINES = ("eager", "torchscript", "compile", "eager-bf16", "eager-half",
                "go-exact", "go-graphs", "go-as-bfloat16", "go-as-float16",
                "go-graphs-as-float16")  # fmt: skip
NAMES = {
    "eager": "Python, eager",
    "torchscript": "Python, TorchScript",
    "compile": "Python, torch.compile",
    "eager-bf16": "Python, eager, bfloat16",
    "eager-half": "Python, eager, float16",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-bf16": "OpenVINO, bf16",
    "go-exact": "**Go, exact**",
    "go-fast": "**Go, fast**",
    "go-bfloat16": "**Go, bfloat16**",
    "go-as-bfloat16": "**Go, model in bfloat16**",
    "go-as-float16": "**Go, model in float16**",
    "go-graphs": "**Go, CUDA graphs**",
    "go-graphs-as-float16": "**Go, float16, CUDA graphs**",
}
TITLES = {
    "vit_tiny_patch16_224": "ViT-Ti/16, 224x224",
    "vit_small_patch16_224": "ViT-S/16, 224x224",
    "vit_base_patch16_224": "ViT-B/16, 224x224",
    "segmentation": "ViT-S/16 segmentation, 512x512",
    "detection": "Faster R-CNN over ViT-S/16, 640x640",
    "photo": "Photo to answer, JPEG of 1920x1080, ViT-S/16",
}
SMALL: dict[str, Any] = {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}

#: A call gives what is compared with other engines' answers.
Call = Callable[[], np.ndarray]


# --- the models ---


def make_model(workload: str) -> Any:
    """The model with weights that are the same in every process."""
    import torch

    if workload in ("segmentation", "detection"):
        from models.detection import vit_faster_rcnn
        from models.segmentation import VisionTransformerForSegmentation
        from models.vision_transformer import VisionTransformer
        from models.weights import seed_weights

        if workload == "segmentation":
            model: Any = VisionTransformerForSegmentation(21, img_size=512, **SMALL)
        else:
            vit = VisionTransformer(img_size=640, num_classes=0, **SMALL)
            model = vit_faster_rcnn(vit, 8, min_size=640, max_size=640)
        seed_weights(model, 1)
        return model.eval()
    import timm

    torch.manual_seed(1)
    model = timm.create_model(workload, pretrained=False).eval()
    torch.nn.init.normal_(model.head.weight, std=0.05)
    return model


def side(workload: str) -> int:
    """The height and width of a model's input."""
    return {"segmentation": 512, "detection": 640}.get(workload, 224)


def numbers(workload: str, answer: Any) -> np.ndarray:
    """What is compared of an answer."""
    if workload == "detection":
        if isinstance(answer, tuple):  # a script gives its losses too
            answer = answer[-1]
        answer = answer[0]["scores"]
    return answer.detach().float().cpu().numpy()


def prepare(workload: str, batch: int, folder: Path, onnx: bool) -> dict[str, Any]:
    """Writes the model as TorchScript, and as ONNX where an engine takes it, and an input."""
    import torch

    if workload == "photo":
        return prepare_photo(batch, folder)
    model = make_model(workload)
    torch.manual_seed(2)
    x = torch.rand(batch, 3, side(workload), side(workload))
    np.save(folder / "input.npy", x.numpy())
    torch.jit.script(model).save(str(folder / "model.pt"))
    settings = {"workload": workload, "folder": str(folder), "list": workload == "detection"}
    settings |= {k: str(folder / v) for k, v in {"model": "model.pt", "input": "input.npy"}.items()}
    if onnx:
        settings["onnx"] = str(folder / "model.onnx")
        try:
            export_onnx(model, workload, x, Path(settings["onnx"]))
        except Exception as error:  # whatever the exporter raises: its engines are left out
            print(f"{workload} has no ONNX file: {error}", file=sys.stderr)
    return settings


def export_onnx(model: Any, workload: str, x: Any, path: Path) -> None:
    """Writes the ONNX file."""
    import warnings

    import torch

    args = ([x[0]],) if workload == "detection" else (x,)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, args, str(path), dynamo=False, opset_version=17)


def prepare_photo(batch: int, folder: Path) -> dict[str, Any]:
    """Writes the model file of ViT-S/16 with its preprocess, and the photos."""
    from PIL import Image

    with Image.open(ROOT / "testdata" / "images" / "rocket.jpg") as image:
        large = image.convert("RGB").resize((1920, 1080), Image.Resampling.BICUBIC)
    photos = []
    for k in range(batch):
        path = folder / f"photo-{k}.jpg"
        large.transpose(
            Image.Transpose.FLIP_LEFT_RIGHT if k % 2 else Image.Transpose.FLIP_TOP_BOTTOM
        ).save(path, quality=92)
        photos.append(str(path))
    model = folder / "model.pt"
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "export.py"), "timm:vit_small_patch16_224",
         "--out", str(model)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return {"workload": "photo", "folder": str(folder), "model": str(model), "photos": photos}


# --- Python's engines ---


def load_torch(engine: str, settings: dict[str, Any]) -> tuple[Call, Call]:
    """The call, and the forward alone, of a PyTorch engine: eager, torchscript, compile, ..."""
    import torch

    workload, device = settings["workload"], settings["device"]
    torch.set_num_threads(settings["threads"])
    if engine == "torchscript":
        if workload == "detection":
            import torchvision  # noqa: F401  its operators
        model = torch.jit.load(settings["model"], map_location=device).eval()
    else:
        model = make_model(workload).to(device)
    if engine == "compile":
        model = torch.compile(model)
    dtype = {"bf16": torch.bfloat16, "half": torch.float16}.get(
        engine.rpartition("-")[2], torch.float32
    )
    model = model.to(dtype)
    if workload == "photo":
        return photo_call(model, settings)
    x = torch.from_numpy(np.load(settings["input"])).to(device, dtype)

    def call() -> np.ndarray:
        with torch.inference_mode():
            answer = model(list(x) if settings["list"] else x)
            return numbers(workload, answer)

    return call, call


def photo_call(model: Any, settings: dict[str, Any]) -> tuple[Call, Call]:
    """Photos to their five best classes, as with Pillow and torchvision."""
    import torch
    from PIL import Image
    from torchvision import transforms as T

    preprocess = T.Compose(
        [
            T.Resize(248, T.InterpolationMode.BICUBIC),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def pixels() -> Any:
        images = [preprocess(Image.open(p).convert("RGB")) for p in settings["photos"]]
        return torch.stack(images).to(settings["device"])

    def call() -> np.ndarray:
        x = pixels()
        with torch.inference_mode():
            scores = model(x).softmax(-1)
        return scores.topk(5).values.cpu().numpy()

    prepared = pixels()

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return model(prepared).cpu().numpy()

    return call, forward


def load_onnxruntime(settings: dict[str, Any]) -> Call:
    """ONNX Runtime on the file that export_onnx wrote."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    session = onnxruntime.InferenceSession(
        settings["onnx"], options, providers=["CPUExecutionProvider"]
    )
    x = np.load(settings["input"])
    x = x[0] if settings["list"] else x
    name = session.get_inputs()[0].name
    wanted = [output.name for output in session.get_outputs()]
    which = 2 if settings["list"] else 0  # boxes, labels, scores
    return lambda: session.run(wanted, {name: x})[which]


def load_openvino(settings: dict[str, Any], precision: str) -> Call:
    """OpenVINO on the same ONNX file."""
    import openvino

    x = np.load(settings["input"])
    x = x[0] if settings["list"] else x
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
    which = 2 if settings["list"] else 0
    return lambda: request.infer([x])[which].copy()


def work(settings: dict[str, Any]) -> None:
    """The process of a Python engine: the protocol of internal/bench."""
    begun, engine = settings["begun"], settings["engine"]
    if engine == "onnxruntime":
        forward = call = load_onnxruntime(settings)
    elif engine.startswith("openvino"):
        forward = call = load_openvino(settings, "bf16" if engine.endswith("bf16") else "f32")
    else:
        call, forward = load_torch(engine, settings)
    np.save(settings["output"], call())
    print(time.time() - begun, peak(), flush=True)
    for line in sys.stdin:
        what = forward if line.startswith("forward") else call
        start = time.perf_counter()
        for _ in range(int(line.split()[-1])):
            what()
        print(time.perf_counter() - start, peak(), flush=True)


def peak() -> float:
    """The peak of resident memory in megabytes. (getrusage's is the parent's, before exec.)"""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


# --- the rounds ---


class Worker:
    """An engine's process."""

    def __init__(self, engine: str, settings: dict[str, Any], program: Path) -> None:
        self.engine = engine
        settings["output"] = self.output = f"{settings['folder']}/{engine}.npy"
        if engine.startswith("go-"):
            form = engine.removeprefix("go-")
            asked = {
                k: settings[k]
                for k in ("model", "input", "output", "threads", "list", "photos", "device")
                if k in settings
            }
            if form.startswith("graphs"):
                asked["cuda_graphs"] = True
                form = form.removeprefix("graphs").removeprefix("-") or "exact"
            if form.startswith("as-"):
                asked["dtype"] = form.removeprefix("as-")
            else:
                asked["precision"] = form
            command = [str(program), json.dumps(asked)]
        else:
            if engine.startswith(("onnx", "openvino")) and not Path(settings["onnx"]).exists():
                raise RuntimeError("no ONNX file")
            asked = settings | {"engine": engine, "begun": time.time()}
            command = [sys.executable, __file__, "--worker", json.dumps(asked)]
        environment = os.environ | {"OMP_NUM_THREADS": str(settings["threads"])}
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, env=environment,
        )  # fmt: skip
        self.first, self.peak = self.answer()
        self.times: list[float] = []
        self.forwards: list[float] = []

    def answer(self) -> tuple[float, float]:
        """The next line: seconds, and megabytes."""
        assert self.process.stdout is not None
        fields = self.process.stdout.readline().split()
        if len(fields) != 2:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise RuntimeError(lines[-1][:200] if lines else "got no answer")
        return float(fields[0]), float(fields[1])

    def run(self, count: int, forward: bool = False) -> float:
        """Seconds of a call, or of the model alone, the mean of count."""
        assert self.process.stdin is not None
        print(f"forward {count}" if forward else count, file=self.process.stdin, flush=True)
        seconds, self.peak = self.answer()
        return seconds / count

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.errors.close()


@dataclass
class Row:
    """A line of the table."""

    engine: str
    ms: float
    ratio: float  # to the first engine
    exact_ratio: float  # to TorchScript, 0 where it did not run
    difference: float
    first: float
    peak: float
    rounds: int
    outside: float | None  # ms of a call that the model does not take, of photos


def compare(
    settings: dict[str, Any], engines: list[str], rounds: int, program: Path
) -> tuple[list[Row], list[str]]:
    """Times the engines in turn; the names of those that were left out, and why."""
    workers: list[Worker] = []
    left_out: list[str] = []
    for engine in engines:
        try:
            workers.append(Worker(engine, dict(settings), program))
        except (RuntimeError, OSError) as error:
            left_out.append(f"{engine}: {error}")
            print(f"{engine} left out: {error}", file=sys.stderr)
    photos = settings["workload"] == "photo"
    if not workers:
        return [], left_out
    count = max(2 if photos else 1, round(0.3 / workers[0].run(2)))
    for k in range(rounds + 1):
        for worker in workers[k % len(workers) :] + workers[: k % len(workers)]:
            seconds = worker.run(count)
            if k > 0:  # the first round settles executors and caches
                worker.times.append(seconds)
            if photos:
                seconds = worker.run(count, forward=True)
                if k > 0:
                    worker.forwards.append(seconds)
    want = np.load(workers[0].output)
    base = workers[0].times
    script = next((w.times for w in workers if w.engine == "torchscript"), None)
    rows = []
    for worker in workers:
        worker.close()
        rows.append(
            Row(
                engine=worker.engine,
                ms=1e3 * statistics.median(worker.times),
                ratio=paired(worker.times, base),
                exact_ratio=paired(worker.times, script) if script else 0,
                difference=difference(np.load(worker.output), want),
                first=worker.first,
                peak=worker.peak,
                rounds=rounds,
                outside=outside(worker) if photos else None,
            )
        )
    return rows, left_out


def outside(worker: Worker) -> float:
    """Milliseconds of a call beside the model, the median over the rounds."""
    pairs = zip(worker.times, worker.forwards, strict=True)
    return 1e3 * statistics.median(t - f for t, f in pairs)


def paired(times: list[float], base: list[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(t / b for t, b in zip(times, base, strict=True))


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference relative to the range; a shorter answer counts zeros."""
    if got.ndim == want.ndim == 1:  # a detector's scores, best first
        n = max(len(got), len(want))
        got, want = (np.pad(np.sort(a)[::-1], (0, n - len(a))) for a in (got, want))
    if got.shape != want.shape:
        return float("nan")
    return float(np.abs(got - want).max() / np.ptp(want))


# --- the table ---


def machine() -> str:
    """The processor, and what it can."""
    flags: set[str] = set()
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    except OSError:
        pass
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    has = [f for f in wanted if f in flags] or ["none of " + ", ".join(wanted)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {', '.join(has)}, {memory:.0f} GB"


def versions() -> str:
    """The versions that matter."""
    import importlib.metadata as metadata

    out = [f"Python {platform.python_version()}"]
    for name in ("torch", "torchvision", "timm", "onnxruntime", "openvino"):
        try:
            out.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(out)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    first = NAMES[rows[0].engine].removeprefix("Python, ")
    heads = ["engine", "ms", f"of {first}"]
    if first != "TorchScript":
        heads.append("of TorchScript")
    if rows[0].outside is not None:
        heads.append("outside the forward, ms")
    heads += ["difference / range", "first answer, s", "peak, MB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for r in rows:
        cells = [NAMES[r.engine], f"{r.ms:.1f}", f"{r.ratio:.2f}"]
        if first != "TorchScript":
            cells.append(f"{r.exact_ratio:.2f}" if r.exact_ratio else "")
        if r.outside is not None:
            cells.append(f"{r.outside:.1f}")
        cells += [f"{r.difference:.1e}", f"{r.first:.2f}", f"{r.peak:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draws a bar for each engine's milliseconds in each workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 2
    height = sum(len(r["rows"]) for r in results) / columns
    figure, axes = plt.subplots(
        -(-len(results) // columns), columns, figsize=(11, 0.34 * height + 1.1 * len(results) / 2),
        squeeze=False, constrained_layout=True,
    )  # fmt: skip
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    for axis, result in zip(axes.flat, results, strict=False):
        rows = result["rows"]
        names = [NAMES[r.engine].strip("*") for r in rows]
        colors = ["#0072b2" if r.engine.startswith("go-") else "#b0b0b0" for r in rows]
        bars = axis.barh(names, [r.ms for r in rows], color=colors)
        axis.bar_label(bars, [f"{r.ms:.0f} ms" for r in rows], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.18 * max(r.ms for r in rows))
        axis.set_title(
            f"{TITLES.get(result['workload'], result['workload'])}, batch {result['batch']}",
            fontsize=9,
            loc="left",
        )
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("milliseconds a call; shorter is better", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def document(results: list[dict[str, Any]], args: argparse.Namespace, figure: str) -> str:
    """The page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`: the engines of a table run in turn in one run, on the same files",
        "and cores, in an order that changes; each is a process of its own. Times are medians,",
        "ratios are medians of the ratios within the rounds. `scripts/bench.py --help` says more.",
        "All digits are in the .json file beside this page.",
        "",
        f"Machine: {machine()}; {args.threads} threads; {versions()}.",
        "",
        f"![Milliseconds a call for each engine and workload]({figure})",
    ]
    for result in results:
        rows = result["rows"]
        lines += [
            "",
            f"## {TITLES.get(result['workload'], result['workload'])}, batch {result['batch']}",
            "",
            f"{rows[0].rounds} rounds{', ' + result['date'] if 'date' in result else ''}.",
            "",
            table(rows),
        ]
        if result["left_out"]:
            lines += ["", "Left out: " + "; ".join(result["left_out"]) + "."]
    return "\n".join(lines) + "\n"


def kept(results: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """The file's tables, with those of this run in their place."""
    new = {(r["workload"], r["batch"]): r for r in results}
    old = json.loads(path.read_text())
    for r in old:
        r["rows"] = [Row(**row) for row in r["rows"]]
    out = [new.pop((r["workload"], r["batch"]), r) for r in old]
    return out + list(new.values())


def batches(workload: str, asked: list[int]) -> list[int]:
    """Segmentation and detection are measured with one image a call."""
    return [1] if workload in ("segmentation", "detection") else asked


def chosen(args: argparse.Namespace, workload: str, batch: int) -> list[str]:
    """The engines of a workload, in the table's order."""
    known: tuple[str, ...] = ENGINES if args.device == "cpu" else CUDA_ENGINES
    if workload == "photo":
        known = tuple(e for e in known if e == "torchscript" or e.startswith("go-"))
    if workload == "detection":
        # torch.compile breaks at each of its decisions; torchvision's operators have no bfloat16.
        known = tuple(e for e in known if e not in ("compile", "eager-bf16", "eager-half"))
        known = tuple(e for e in known if "graphs" not in e)  # it waits for the device
    if batch > 1:
        known = tuple(e for e in known if e != "compile")  # a minute each time, to say the same
    asked = [e for e in known if e in args.engines]
    if not native_bfloat16() and args.device == "cpu" and not args.bfloat16:
        asked = [e for e in asked if not e.endswith(("bf16", "bfloat16"))]
    return asked


def native_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in text for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def main() -> None:
    """Prints a table for each workload and batch, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = sorted({*ENGINES, *CUDA_ENGINES})
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS, metavar="NAME", help="which")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images in a call")
    parser.add_argument("--engines", nargs="+", choices=every, default=every, help="which")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each engine")
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds")
    parser.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 also where the processor cannot do it"
    )
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument(
        "--keep", action="store_true", help="leave the page's other tables, of the same machine"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.worker))
        return
    results: list[dict[str, Any]] = []
    print(f"{machine()}; {args.threads} threads\n{versions()}")
    for workload in args.workloads:
        for batch in batches(workload, args.batch):
            engines = chosen(args, workload, batch)
            with tempfile.TemporaryDirectory() as folder:
                program = Path(folder) / "bench"
                subprocess.run(
                    ["go", "build", "-o", str(program), "./internal/bench"], cwd=ROOT, check=True
                )
                onnx = any(e.startswith(("onnx", "openvino")) for e in engines)
                settings = prepare(workload, batch, Path(folder), onnx)
                settings |= {"threads": args.threads, "device": args.device}
                rows, left_out = compare(settings, engines, args.rounds, program)
            if not rows:
                continue
            results.append(
                {"workload": workload, "batch": batch, "rows": rows, "left_out": left_out,
                 "date": time.strftime("%Y-%m-%d")}
            )  # fmt: skip
            title = TITLES.get(workload, workload)
            print(f"\n{title}, batch {batch}, {args.rounds} rounds\n{table(rows)}", flush=True)
    if args.out:
        if args.keep:
            results = kept(results, args.out.with_suffix(".json"))
        figure = args.out.with_name("images") / f"{args.out.stem}.png"
        figure.parent.mkdir(parents=True, exist_ok=True)
        plot(results, figure)
        args.out.write_text(document(results, args, f"images/{figure.name}"))
        args.out.with_suffix(".json").write_text(
            json.dumps([r | {"rows": [asdict(row) for row in r["rows"]]} for r in results])
        )
        print(f"\nwrote {args.out} and {figure}")


if __name__ == "__main__":
    main()
