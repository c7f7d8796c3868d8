"""Tries every family of models that export.py takes, and writes docs/models.md.

    go build -o bin/torchvit ./cmd/torchvit
    .venv/bin/python scripts/model_table.py --cache /tmp/model-table

Each model is exported by export.py in a process of its own with limits of time and memory,
small where its family allows it, with seeded weights; `torchvit verify` then compares Go with
the file in Python. The rows are kept in the folder of --cache, so that a run that was stopped
goes on where it was; a row is made again when the scripts or the libraries have changed. The
table is written whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch")

INTRODUCTION = """# Models from elsewhere

`scripts/export.py` makes a model file of a model of timm, torchvision, Hugging Face transformers
or segmentation-models-pytorch, or of your own code. This page is written by
`scripts/model_table.py`, which exports every model of `scripts/model_table.txt` with seeded
weights, made small where its family allows that, and compares.

```sh
python=.venv/bin/python
$python scripts/export.py timm:vit_base_patch16_224 --checkpoint vit.safetensors --out vit.pt
$python scripts/export.py torchvision:fasterrcnn_resnet50_fpn --checkpoint frcnn.pth --out frcnn.pt
$python scripts/export.py hf:path/to/segformer-b0-ade --out segformer.pt
$python scripts/export.py smp:Unet+resnet18 --num-classes 2 --checkpoint unet.pt --out unet.pt
$python scripts/export.py mymodels:make_unet --arg width=64 --task segmentation \\
    --input 1x3x256x256 --checkpoint best.pth --out mine.pt
bin/torchvit verify mine.pt
```

Your own code is any `MODULE:ATTRIBUTE` on Python's path whose attribute is a `torch.nn.Module`, a
class of one or a function that makes one; `--input` gives the shape of an example, `--task` what
the model is for, and `--kind`, `--leaf` and `--preprocess` what the form of its answer does not
tell. Nothing is downloaded: weights come from `--checkpoint`, or from a Hugging Face folder. What
a checkpoint lacks and what it has too much is listed; missing parameters are refused unless
`--allow-missing`.

A model is scripted where that compiles and gives eager Python's answers, else traced. A plain
Hugging Face ViT is put together of traced parts, so that it has the methods of the reference
model. A model whose answers at its own size are not eager Python's is refused unless
`--allow-different`; a difference of up to 1e-4 of the largest value counts as the same, and is
told. `torchvit.export.json` in the file holds the report.

The columns:

- **Model**: the source, as export.py takes it, and what was changed to make it small.
- **Exported**: `script`, `trace`, or `parts` (traced parts in a script); `+ methods` where the
  file has the reference model's: forward_features, forward_blocks, forward_norm, attention,
  attentions and forward_with_attention.
- **Answer**: task and kind of output.
- **Sizes**: the model's own, and those that work beside it. Tried: about half, a little more, one
  that is not square, and then the smallest number that may divide the sides.
- **Batches**: of 1, 2 and 3, those that work.
- **Eager**: the largest difference between the file in Python and the eager model, wherever the
  file works.
- **Go**: the largest difference between Go and the file in Python, over all answers of the file's
  reference.
- **Remarks**: why something fails or differs.
"""

# Code of a user, for the fifth source.
USER_CODE = '''
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.norm = nn.BatchNorm2d(b)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class UNet(nn.Module):
    """Two levels, a binary mask."""

    def __init__(self, width=8, classes=1):
        super().__init__()
        self.down = Block(3, width)
        self.deep = Block(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.out = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.up(self.deep(nn.functional.max_pool2d(a, 2)))
        return self.out(torch.cat([a, b], 1))


def make_unet(width=8, classes=3):
    return UNet(width, classes)


class ClassMap(UNet):
    """Class ids in place of logits."""

    def forward(self, x):
        return super().forward(x).argmax(1)


class Keywords(nn.Module):
    """Takes **kwargs, which TorchScript does not compile."""

    def __init__(self, classes=5):
        super().__init__()
        self.body = Block(3, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, x, **kwargs):
        return {"logits": self.head(self.body(x).mean((2, 3)))}


class Branches(Keywords):
    """Its path depends on the pixels: scripting refuses **kwargs and a trace fixes the path."""

    def forward(self, x, **kwargs):
        y = self.body(x).mean((2, 3))
        if float(x[0, 0, 0, 0]) > 0:
            y = -y
        if float(torch.rand(())) < 0:
            y = y * 2
        return {"logits": self.head(y) + float(x.mean()) * 100}


class Queries(nn.Module):
    """A set of boxes, as DETR gives them."""

    def __init__(self, queries=12, classes=4):
        super().__init__()
        self.body = Block(3, 16)
        self.queries = nn.Parameter(torch.randn(queries, 16))
        self.logits = nn.Linear(16, classes + 1)
        self.boxes = nn.Linear(16, 4)

    def forward(self, x):
        y = self.body(x).mean((2, 3))[:, None] + self.queries
        return self.logits(y), self.boxes(y).sigmoid()
'''


@dataclass
class Entry:
    """One model to try."""

    source: str
    args: list[str] = field(default_factory=list)
    note: str = ""  # what the model stands for


def entry(line: str) -> Entry:
    """SOURCE [options] [# what it stands for]"""
    line, _, note = line.partition("#")
    source, *args = line.split()
    return Entry(source, args, note.strip())


TITLES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "hf": "Hugging Face transformers",
    "smp": "segmentation-models-pytorch",
    "code": "The user's own code",
}


def models() -> dict[str, list[Entry]]:
    """The models of model_table.txt by source: [NAME] begins a source, $NAME = text names a
    text that a later $NAME stands for, and a backslash at its end continues a line."""
    text = (SCRIPTS / "model_table.txt").read_text(encoding="utf-8").replace("\\\n", "")
    names: dict[str, str] = {}
    found: dict[str, list[Entry]] = {}
    for line in text.splitlines():
        line = re.sub(r"\$([A-Z]+)(?! *=)\b", lambda m: names[m[1]], line.strip())
        if header := re.fullmatch(r"\[(\w+)\]", line):
            group = found.setdefault(header[1], [])
        elif definition := re.fullmatch(r"\$([A-Z]+) *= *(.*)", line):
            names[definition[1]] = definition[2]
        elif line and not line.startswith("#"):
            group.append(entry(line))
    return found


def versions() -> dict[str, str]:
    """The libraries that the models come from."""
    return {name: importlib.metadata.version(name).split("+")[0] for name in LIBRARIES}


def code_digest() -> str:
    """A hash of the scripts that a row depends on."""
    digest = hashlib.sha256()
    names = ["export.py", "modelfile.py", "preprocess.py", "reference_files.py"]
    paths = [SCRIPTS / name for name in names]
    paths += sorted((SCRIPTS / "sources").glob("*.py"))
    paths += [SCRIPTS / "models" / n for n in ("timm_wrapper.py", "torchvision_wrapper.py")]
    paths += [SCRIPTS / "models" / n for n in ("traced_vit.py", "weights.py")]
    for path in paths:
        digest.update(path.read_bytes())
    digest.update(USER_CODE.encode())
    return digest.hexdigest()[:16]


def slug(e: Entry) -> str:
    """A file name for a row."""
    text = " ".join([e.source, *e.args])
    name = re.sub(r"[^A-Za-z0-9]+", "_", text)[:80].strip("_")
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def child(argv: list[str], folder: Path, seconds: int, gigabytes: int) -> None:
    """What a model's own process does: limits of processor time and memory, then export.py."""
    import export

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["export.py", *argv]
    export.main()


def run_row(e: Entry, args: argparse.Namespace) -> dict[str, Any]:
    """Exports and verifies one model."""
    with tempfile.TemporaryDirectory(prefix="model-table.") as name:
        folder = Path(name)
        (folder / "usercode.py").write_text(USER_CODE)
        out = folder / "model.pt"
        argv = [e.source, *e.args, "--json", "--out", str(out)]
        # Forked, so that the libraries are imported once for all models.
        process = multiprocessing.get_context("fork").Process(
            target=child, args=(argv, folder, args.cpu, args.memory)
        )
        process.start()
        process.join(args.timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            return {"error": f"takes longer than {args.timeout} s"}
        stderr = (folder / "stderr").read_text(errors="replace")
        if process.exitcode != 0:
            lines = [line for line in stderr.splitlines() if line.strip()]
            text = lines[-1] if lines else f"ends with status {process.exitcode}"
            return {"error": text, "crash": "Traceback" in stderr or process.exitcode < 0}
        row: dict[str, Any] = {
            "report": json.loads((folder / "stdout").read_text().splitlines()[-1])
        }
        verified = subprocess.run(
            [str(args.torchvit), "verify", "--json", str(out)],
            capture_output=True,
            text=True,
            timeout=args.timeout,
        )
        lines = verified.stdout.splitlines()
        if not lines:
            row["go_error"] = (verified.stderr.strip().splitlines() or ["no answer"])[-1]
            return row
        answer = json.loads(lines[-1])
        outputs = [o for call in answer["calls"] for o in call["outputs"]]
        row["go"] = {
            "ok": answer["ok"],
            "exact": answer["exact"],
            "outputs": len(outputs),
            "different": sum(o["different"] for o in outputs),
            "max_abs": max((o["max_abs"] or 0.0) for o in outputs),
            "problems": [o["problem"] for o in outputs if o.get("problem")],
        }
        return row


def rows(args: argparse.Namespace) -> dict[str, list[tuple[Entry, dict[str, Any]]]]:
    """All rows, from the cache where they are current."""
    key = {"versions": versions(), "code": code_digest()}
    found: dict[str, list[tuple[Entry, dict[str, Any]]]] = {}
    for group, entries in models().items():
        found[group] = []
        for e in entries:
            if args.only and not re.search(args.only, " ".join([e.source, *e.args])):
                continue
            path = args.cache / slug(e)
            row: dict[str, Any] | None = None
            if path.is_file() and not args.fresh:
                row = json.loads(path.read_text())
                if row["key"] != key and not args.stale:
                    row = None
            if row is None:
                row = {"key": key, **run_row(e, args)}
                part = path.with_suffix(".part")
                part.write_text(json.dumps(row))
                os.replace(part, path)
            found[group].append((e, row))
            said = row.get("error") or row.get("go_error") or row["report"]["mode"]
            print(f"{e.source} {' '.join(e.args)}: {said}", file=sys.stderr, flush=True)
    return found


def number(value: float) -> str:
    """0, or three digits."""
    return "0" if value == 0 else f"{value:.1e}"


def cell(text: str) -> str:
    """Text that a table can hold."""
    text = text.replace("](", "] (")  # would be a link
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def sizes_of(report: dict[str, Any]) -> str:
    """The sizes that work."""
    height, width = report["cases"][0]["size"]
    own = f"{height}x{width}"
    if report["kind"] == "detections":
        different = any(c["outcome"] == "differs" for c in report["cases"])
        return "any, but about half are not eager Python's" if different else "any"
    if report["dynamic"]:
        multiple = report["multiple_of"]
        return f"{own}, any" + (f" multiple of {multiple}" if multiple > 1 else "")
    good = [c for c in report["cases"] if c["outcome"] in ("equal", "close") and c["batch"] == 1]
    more = [f"{c['size'][0]}x{c['size'][1]}" for c in good[1:]]
    return ", ".join([own, *more]) if more else f"{own} only"


def batches_of(report: dict[str, Any]) -> str:
    """The batches that work at the model's own size."""
    own = report["cases"][0]["size"]
    good = [c for c in report["cases"] if c["outcome"] in ("equal", "close")]
    return ", ".join(str(c["batch"]) for c in good if c["size"] == own)


def remarks(row: dict[str, Any]) -> str:
    """Why something fails or differs."""
    report = row["report"]
    text = []
    for mode, why in report["failed"].items():
        text.append(f"{mode}: {why}")
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in report["cases"]:
        if case["outcome"] not in ("equal", "close"):
            groups.setdefault(case["outcome"], []).append(case)
    for outcome, cases in groups.items():
        who = "eager Python refuses" if outcome == "refused" else outcome
        shapes = [
            "{}x{}".format(*c["size"]) + (f" x {c['batch']}" if c["batch"] > 1 else "")
            for c in cases
        ]
        text.append(f"{', '.join(shapes)} {who}: {cases[0].get('why', '')}")
    if report["preprocess"] and "equal" not in report["preprocess"]:
        text.append(f"preprocess {report['preprocess']}")
    text += report["notes"]
    if "go_error" in row:
        text.append(f"Go: {row['go_error']}")
    return "; ".join(cell(clip(t)) for t in text)


def clip(text: str, limit: int = 160) -> str:
    """A remark of one line, without places in files."""
    text = re.sub(r':? *File "[^"]*", line \d+', "", text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def options(e: Entry) -> str:
    """The arguments, in few words."""
    words = " ".join(e.args).replace("--arg ", "").replace("--", "")
    words = re.sub(r"(backbone|vision)_config=\S+", r"\1_config=...", words)
    return words


def table(group: list[tuple[Entry, dict[str, Any]]]) -> list[str]:
    """The table of one source."""
    lines = [
        "| Model | Exported | Answer | Sizes | Batches | Eager | Go | Remarks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for e, row in group:
        model = f"`{e.source}`"
        if e.args:
            model += f" {cell(options(e))}"
        if e.note:
            model += f" ({cell(e.note)})"
        if "error" in row:
            why = re.sub(r"^\S+: ", "", row["error"]) if ": " in row["error"] else row["error"]
            lines.append(f"| {model} | no | | | | | | {cell(clip(why, 240))} |")
            continue
        report = row["report"]
        mode = report["mode"] + (" + methods" if report["methods"] else "")
        go = number(row["go"]["max_abs"]) if "go" in row else "fails"
        if "go" in row and not row["go"]["ok"]:
            go = f"**{go}**"
        answer = f"{report['task']}, {report['kind']}"
        if report["kind"] == report["task"]:
            answer = report["task"]
        lines.append(
            f"| {model} | {mode} | {answer} | {sizes_of(report)} | {batches_of(report)} | "
            f"{number(report['largest'])} | {go} | {remarks(row)} |"
        )
    return lines


def page(found: dict[str, list[tuple[Entry, dict[str, Any]]]]) -> str:
    """docs/models.md."""
    every = [row for group in found.values() for _, row in group]
    exported = [row for row in every if "report" in row]
    equal = [row for row in exported if row["report"]["largest"] == 0]
    replayed = [row for row in exported if "go" in row]
    exact = [row for row in replayed if row["go"]["different"] == 0 and row["go"]["ok"]]
    outputs = sum(row["go"]["outputs"] for row in replayed)
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [INTRODUCTION]
    lines.append(
        f"{len(every)} models were tried, {len(exported)} exported; {len(equal)} of these give "
        "eager Python's very bits at every size and batch that works. Go gave the bits of the file "
        f"in Python for {len(exact)} of {len(exported)} files ({outputs} answers compared). "
        f"Versions: {used}.\n"
    )
    for group, title in TITLES.items():
        if found.get(group):
            lines += [f"## {title}\n", *table(found[group]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the rows")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "models.md")
    parser.add_argument("--torchvit", type=Path, default=ROOT / "bin" / "torchvit")
    parser.add_argument(
        "--only", help="rows that match this regular expression; no page is written"
    )
    parser.add_argument("--fresh", action="store_true", help="make all rows again")
    parser.add_argument("--stale", action="store_true", help="take rows that older scripts made")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds for a model")
    parser.add_argument("--cpu", type=int, default=300, help="seconds of processor for a model")
    parser.add_argument("--memory", type=int, default=16, help="GB of address space for a model")
    args = parser.parse_args()
    if not args.torchvit.is_file():
        raise SystemExit(f"{args.torchvit}: no such file: go build -o bin/torchvit ./cmd/torchvit")
    args.cache.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    warnings.simplefilter("ignore")
    for name in ("export", "timm", "torchvision", "transformers", "segmentation_models_pytorch"):
        importlib.import_module(name)
    found = rows(args)
    if args.only:
        return
    part = args.out.with_name(args.out.name + ".part")
    part.write_text(page(found), encoding="utf-8")
    os.replace(part, args.out)
    print(f"{args.out}: {sum(len(group) for group in found.values())} models")


if __name__ == "__main__":
    main()
