"""Scripts or traces a source and compares the result with eager Python.

Every comparison is of the file as ``torch.jit.load`` gives it, at several sizes and
batches, on one seeded input for both.
"""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import modelfile
from sources import Source, first_line, noise

# Answers that differ by no more than this share of the largest value count as the same:
# TorchScript fuses some operations and then rounds otherwise.
TOLERANCE = 1e-4
MULTIPLES = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 128)


@dataclass
class Case:
    """One input, and how the file's answer compares with eager Python's."""

    batch: int
    height: int
    width: int
    # "equal", "close", "differs", "fails" (the file), "refused" (eager Python itself).
    outcome: str
    max_abs: float = 0.0
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether the file may be used for such an input."""
        return self.outcome in ("equal", "close")

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "batch": self.batch,
            "size": [self.height, self.width],
            "outcome": self.outcome,
            "max_abs": self.max_abs,
            **({"why": self.why} if self.why else {}),
        }


@dataclass
class Attempt:
    """A module that one of the ways gave, and what it is worth."""

    mode: str
    module: torch.jit.ScriptModule | None = None
    loaded: torch.jit.ScriptModule | None = None
    error: str = ""
    cases: list[Case] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether it gives eager Python's answers at the model's own size; a larger batch may
        fail, but not give other answers."""
        if self.module is None or not self.cases or not self.cases[0].good:
            return False
        first = self.cases[0]
        own = [c for c in self.cases if (c.height, c.width) == (first.height, first.width)]
        return all(c.outcome != "differs" for c in own)

    @property
    def score(self) -> int:
        """How many of the inputs it can be used for."""
        return sum(case.good for case in self.cases) if self.works else -1

    @property
    def lost(self) -> list[Case]:
        """Inputs that eager Python takes and this module does not."""
        return [c for c in self.cases if not c.good and c.outcome != "refused"]


def shapes(source: Source) -> list[tuple[int, int, int]]:
    """The (batch, height, width) that are tried; the model's own size comes first."""
    height, width = source.size
    step = source.step

    def smaller(side: int) -> int:
        half = max(2 * step, round(side / 2 / step) * step)
        return half if half < side else max(step, side - step)

    small, large = (smaller(height), smaller(width)), (height + 2 * step, width + 2 * step)
    wide = (height, large[1])
    return [
        (1, height, width),
        (2, height, width),
        (3, height, width),
        (1, *small),
        (1, *large),
        (1, *wide),
        (2, *wide),
    ]


def picture(height: int, width: int, seed: int) -> Tensor:
    """A (3, H, W) of 0..1 with large shapes, for detectors."""
    coarse = noise([1, 3, max(2, height // 24), max(2, width // 24)], seed)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    fine = noise([1, 3, height, width], seed + 1)
    return ((smooth + fine / 8) / 4 + 0.5).clamp(0, 1)[0].mul(255).round().div(255).contiguous()


class Trial:
    """The inputs of a source and eager Python's answers, which every attempt shares."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.answers: dict[Any, Any] = {}

    def inputs(self, batch: int, height: int, width: int, seed: int = 0) -> list[Any]:
        """The arguments of forward. A trace is made from those of another seed: what it took
        from the pixels for a constant then shows."""
        seed += 1000 * height + width
        if self.source.layout == "list":
            # Photos of a batch differ in size.
            return [[picture(height, width - 8 * i, seed + i) for i in range(batch)]]
        return [noise([batch, 3, height, width], seed)]

    def eager(self, key: Any, args: list[Any]) -> Any:
        """Eager Python's answer, flat, or the error that it gave."""
        if key not in self.answers:
            call = self.source.eager or self.source.model
            try:
                with torch.inference_mode():
                    answer = modelfile.flatten(call(*args))
                if not answer:
                    raise TypeError("the answer holds no tensors")
                self.answers[key] = answer
            except Exception as error:
                self.answers[key] = error
        return self.answers[key]

    def compare(self, attempt: Attempt, batch: int, height: int, width: int, runs: int = 1) -> Case:
        """Runs one input through both; runs > 1 lets TorchScript's optimiser settle."""
        if self.source.inputs:
            args = self.source.inputs[0]
        else:
            args = self.inputs(batch, height, width)
        return self.compare_args(attempt, (batch, height, width), args, runs)

    def compare_args(
        self, attempt: Attempt, key: tuple[int, int, int], args: list[Any], runs: int
    ) -> Case:
        case = Case(*key, outcome="equal")
        want = self.eager(key, args)
        if isinstance(want, Exception):
            case.outcome, case.why = "refused", first_line(want)
            return case
        for _ in range(runs):
            try:
                with torch.inference_mode():
                    answer = attempt.loaded(*args)
                if self.source.answer is not None:
                    answer = self.source.answer(answer)
                got = modelfile.flatten(answer)
            except Exception as error:
                case.outcome, case.why = "fails", first_line(error)
                return case
            outcome, max_abs, why = difference(got, want)
            if outcome == "differs" and self.source.known is not None:
                why = self.source.known(case.height, case.width) or why
            order = ("equal", "close", "differs")
            if order.index(outcome) >= order.index(case.outcome):
                case.outcome, case.why = outcome, why
                case.max_abs = max(case.max_abs, max_abs)
        return case


def difference(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> tuple[str, float, str]:
    """The outcome, the largest difference and a reason."""
    if list(got) != list(want):
        return "differs", 0.0, f"gives {form(got)}, eager Python {form(want)}"
    largest, outcome = 0.0, "equal"
    for name, w in want.items():
        g = got[name]
        if g.shape != w.shape or g.dtype != w.dtype:
            return "differs", 0.0, f"gives {form(got)}, eager Python {form(want)}"
        if w.size == 0 or np.array_equal(g, w, equal_nan=w.dtype.kind == "f"):
            continue
        a, b = g.astype(np.float64), w.astype(np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return "differs", float("inf"), f"{name} is not finite at the same places"
        finite = np.isfinite(b)
        d = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
        scale = float(np.abs(b[finite]).max(initial=0.0))
        largest = max(largest, d)
        if d > TOLERANCE * max(1.0, scale):
            return "differs", largest, f"{name} differs by {d:.3g} of {scale:.3g}"
        outcome = "close"
    return outcome, largest, ""


def form(arrays: dict[str, np.ndarray]) -> str:
    """The leaves of an answer in few words: out.0 [1, 100, 92]."""
    leaves = [f"{n} {list(a.shape)}" for n, a in arrays.items()]
    return ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")


def without_stacks(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same module without the Python stack that tracing noted for every operation: it
    names the exporter's own folders and is as large as the code."""
    stream = io.BytesIO()
    torch.jit.save(module, stream)
    kept = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(kept, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry, old.read(entry))
    kept.seek(0)
    return torch.jit.load(kept)


def trace(source: Source, example: list[Any]) -> torch.jit.ScriptModule:
    """torch.jit.trace of forward; dicts are allowed as answers."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(source.model, tuple(example), strict=False, check_trace=False)
    return without_stacks(module)


def make(mode: str, maker: Callable[[], torch.jit.ScriptModule]) -> Attempt:
    """Runs one way; an error is what it is worth."""
    attempt = Attempt(mode)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = maker()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            module.save(str(path))
            attempt.loaded, _, _ = modelfile.load(path)
        attempt.module = module
    except Exception as error:
        attempt.error = first_line(error)
    return attempt


def script(source: Source) -> torch.jit.ScriptModule:
    """torch.jit.script of the model."""
    with modelfile.portable_sources():
        return torch.jit.script(source.model)


def try_all(trial: Trial, attempt: Attempt) -> Attempt:
    """Compares an attempt at every size and batch, unless it fails at the first."""
    if attempt.module is None:
        return attempt
    source = trial.source
    if source.inputs:
        first = source.inputs[0][0]
        shape = list(first[0].shape) if isinstance(first, list) else list(first.shape)
        batch = len(first) if isinstance(first, list) else shape[0]
        own = (batch, shape[-2] if len(shape) > 1 else 0, shape[-1])
        attempt.cases.append(trial.compare(attempt, *own, runs=3))
        if not attempt.works:
            attempt.error = attempt.cases[0].why
        return attempt
    if source.layout == "list":
        tried = [(batch, *source.sizes[0]) for batch in (1, 2, 3)]
        tried += [(1, *size) for size in source.sizes[1:]]
    else:
        tried = shapes(source)
    for shape in tried:
        attempt.cases.append(trial.compare(attempt, *shape, runs=3 if not attempt.cases else 1))
        if not attempt.works:
            attempt.error = attempt.cases[-1].why
            break
    return attempt


def remaining(source: Source, attempt: Attempt) -> list[tuple[int, int, int]]:
    """The shapes that were not tried because an earlier one differed."""
    if source.inputs or source.layout == "list":
        return []
    return shapes(source)[len(attempt.cases) :]


def attempts(source: Source, trial: Trial, forced: str | None) -> list[Attempt]:
    """Tries the ways of a source until one gives eager Python's answers wherever eager Python
    gives any. A trace is made from the model's own size first, and from others where that
    loses some: a size or a batch may be fixed in it."""
    made: list[Attempt] = []
    modes = (forced,) if forced else source.modes
    for mode in modes:
        if mode == "parts" and source.build is not None:
            made.append(try_all(trial, make("parts", source.build)))
        elif mode == "script":
            made.append(try_all(trial, make("script", lambda: script(source))))
        elif mode == "trace" and source.inputs:
            example = source.inputs[0]
            made.append(try_all(trial, make("trace", lambda: trace(source, example))))
        elif mode == "trace" and source.layout == "batch":
            own, large, wide = shapes(source)[0], shapes(source)[4], shapes(source)[-1]
            for shape in (own, wide, large, (2, *source.size)):
                if isinstance(trial.eager(shape, trial.inputs(*shape)), Exception):
                    continue
                example = trial.inputs(*shape, seed=500)
                attempt = make("trace", lambda example=example: trace(source, example))
                made.append(try_all(trial, attempt))
                if attempt.module is None or attempt.works and not attempt.lost:
                    break
        if made and made[-1].works and not made[-1].lost:
            break
    return made


def divisor(source: Source, trial: Trial, attempt: Attempt) -> int:
    """The number that must divide the sides of an input, found by trying."""
    if source.multiple_of:
        return source.multiple_of
    height, width = source.size
    for m in MULTIPLES:
        if m >= source.step:
            break
        if height % m or width % m:
            continue
        # The first has an odd multiple of m on each side, the second may hide behind a round.
        probes = [(1, height + m, width + m), (1, height - m, width + 3 * m)]
        if all(trial.compare(attempt, *probe).good for probe in probes):
            return m
    return source.step


@dataclass
class Result:
    """The best attempt and what was found out."""

    source: Source
    chosen: Attempt
    failed: list[Attempt]
    dynamic: bool = False
    multiple_of: int = 0
    preprocess: str = ""

    @property
    def largest(self) -> float:
        """The largest difference from eager Python where the file may be used."""
        return max((c.max_abs for c in self.chosen.cases if c.good), default=0.0)

    def describe(self) -> dict[str, Any]:
        """As JSON, which the file holds too."""
        return {
            "architecture": self.source.architecture,
            "task": self.source.task,
            "mode": self.chosen.mode,
            "methods": self.source.methods,
            "dynamic": self.dynamic,
            "multiple_of": self.multiple_of,
            "largest": self.largest,
            "cases": [case.describe() for case in self.chosen.cases],
            "failed": {a.mode: a.error for a in self.failed if a.error},
            "preprocess": self.preprocess,
            "notes": self.source.notes,
        }

    def lines(self) -> list[str]:
        """The report, for people."""
        names = {"script": "scripted", "trace": "traced", "parts": "traced parts in a script"}
        text = [names[self.chosen.mode]]
        for attempt in self.failed:
            if attempt.error:
                text.append(f"not {names[attempt.mode]}: {attempt.error}")
        for case in self.chosen.cases:
            size = f"{case.batch} x {case.height}x{case.width}"
            detail = f", by at most {case.max_abs:.3g}" if case.outcome == "close" else ""
            why = f": {case.why}" if case.why else ""
            said = "eager Python refuses" if case.outcome == "refused" else case.outcome
            text.append(f"{size}: {said}{detail}{why}")
        if self.preprocess:
            text.append(f"preprocess: {self.preprocess}")
        return text + self.source.notes


def check(source: Source, forced: str | None, allow_different: bool) -> Result:
    """Makes the TorchScript module of a source; ends where none matches eager Python."""
    source.model.eval()
    for parameter in source.model.parameters():
        parameter.requires_grad_(False)
    failed: list[Attempt] = []
    tried: list[tuple[Source, Trial, Attempt]] = []
    candidate: Source | None = source
    if forced and source.plain is not None and forced not in source.modes:
        candidate = source.plain
    while candidate is not None:
        trial = Trial(candidate)
        for attempt in attempts(candidate, trial, forced):
            tried.append((candidate, trial, attempt))
        if any(a.works for _, _, a in tried):
            break
        candidate = candidate.plain
    usable = [t for t in tried if t[2].works]
    if not usable and allow_different:
        usable = [t for t in tried if t[2].module is not None and t[2].cases]
        usable = [t for t in usable if t[2].cases[-1].outcome == "differs"]
    if not usable:
        own = shapes(source)[0]
        answer = source.inputs or source.layout == "list" or trial.eager(own, trial.inputs(*own))
        if isinstance(answer, Exception):
            raise SystemExit(
                f"{source.architecture}: eager Python itself fails at {own[1]}x{own[2]}: "
                f"{first_line(answer)}"
            )
        reasons = [f"{a.mode}: {a.error}" for _, _, a in tried]
        hint = ""
        if any(a.cases and a.cases[-1].outcome == "differs" for _, _, a in tried):
            hint = " (--allow-different writes it all the same)"
        raise SystemExit(f"{source.architecture}: cannot be exported{hint}: " + "; ".join(reasons))
    best = max(usable, key=lambda t: t[2].score)
    chosen, trial, attempt = best
    if allow_different and not attempt.works:  # the rest of what is to be known
        attempt.cases += [trial.compare(attempt, *shape) for shape in remaining(chosen, attempt)]
    failed = [a for _, _, a in tried if a is not attempt]
    for a in failed:
        if a.works:
            a.error = f"works for fewer inputs: {a.lost[0].why}" if a.lost else ""
    result = Result(chosen, attempt, failed)
    if chosen.layout == "list":
        result.dynamic, result.multiple_of = True, 1
    elif not chosen.inputs:
        # A smaller one may be too small for eager Python itself.
        larger = [c for c in attempt.cases if c.height * c.width > chosen.size[0] * chosen.size[1]]
        result.dynamic = bool(larger) and all(c.good for c in larger if c.batch == 1)
        result.dynamic = result.dynamic and not any(c.batch == 1 for c in attempt.lost)
        if result.dynamic:
            result.multiple_of = divisor(chosen, trial, attempt)
        else:
            result.multiple_of = chosen.multiple_of
    return result


def check_preprocess(source: Source, photo: Path) -> str:
    """Compares torchvit.json's preprocess with the library's own on a photo."""
    if source.processor is None:
        return ""
    image = modelfile.preprocess.decode(photo)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = source.processor(image)
    except Exception as error:
        return f"not compared with the library's own: {first_line(error)}"
    got = modelfile.preprocess.to_tensor(image, source.preprocess)
    if got.shape != want.shape:
        return f"DIFFERS: gives {list(got.shape)}, the library's own {list(want.shape)}"
    d = float((got - want).abs().max())
    return "equal to the library's own" if d == 0 else f"differs from the library's own by {d:.3g}"
