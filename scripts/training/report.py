"""Figures, curves and tables of what is trained, and the model files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from PIL import Image

import garments as g
from models.segmentation_heads import SegmentationHead
from training import runs
from training.classification import PRETRAIN_RATE, PRETRAINING, classification_figures
from training.runs import LOGS, MODELS, ROOT, SIDE, VIT, read_log, write_whole
from training.scenes import LABELS, attention_figures, load_scenes, segmentation_figures
from training.tasks import LAYER_DECAY, TASKS, final_figures, finished_model, pretrained_vit

FIGURES = MODELS / "figures.json"
TEST_SCENES = ROOT / "testdata" / "scenes"
DOCS = ROOT / "docs" / "training.md"
PICTURES = ROOT / "docs" / "images" / "training"


def rounded(value: Any) -> Any:
    """Numbers with four digits after the point, all the way down."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def evaluate(seed: int) -> None:
    """Writes FIGURES and LOGS of whatever is trained here; those of other runs stay."""
    scenes = load_scenes("val")
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    LOGS.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        if (runs.WORK / "pretrain.pth").is_file():
            vit = pretrained_vit().eval()
            figures["attention"] = attention_figures(vit, scenes)
            figures["classification"] = classification_figures(vit, seed)
            keep_log(figures, "pretrain")
        for name in TASKS:
            for start in ("pretrained", "scratch"):
                run = name + ("_scratch" if start == "scratch" else "")
                if (runs.WORK / f"{run}.pth").is_file():
                    model = finished_model(name, start == "scratch")
                    answer = final_figures(name, model, scenes)
                    if name == "segmentation":
                        seen = load_scenes("train", 300)
                        on_seen = segmentation_figures(model, seen.images, seen.masks)
                        answer["miou_seen"] = on_seen["miou"]
                    figures.setdefault(name, {})[start] = answer
                    keep_log(figures, run)
                    print(run, json.dumps(rounded(answer)), flush=True)
    text = json.dumps(rounded(figures), indent=1) + "\n"
    write_whole(FIGURES, lambda path: path.write_text(text))
    print(text)


def keep_log(figures: dict[str, Any], run: str) -> None:
    """Puts the log of a finished run beside the models, and what it cost into the figures."""
    path = runs.WORK / f"{run}.jsonl"
    write_whole(LOGS / path.name, lambda part: part.write_bytes(path.read_bytes()))
    last = read_log(run)[-1]
    facts = {"steps": last["step"], "seconds": last["seconds"]}
    facts |= {"seed": runs.seed_of(run), "precision": last.get("precision", "bfloat16")}
    figures.setdefault("training", {})[run] = facts


TITLES = {
    "segmentation": "Segmentation, 1x1 head",
    "deconvolution": "Segmentation, transposed convolution",
    "faster_rcnn": "Faster R-CNN",
    "yolo": "YOLO-style head",
    "head": "1x1 head alone, on the pretrained ViT as it is",
}


def draw_curves() -> None:
    """Writes PICTURES/*.png from LOGS."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    PICTURES.mkdir(parents=True, exist_ok=True)

    def save(figure: Any, name: str) -> None:
        figure.tight_layout()
        write_whole(
            PICTURES / f"{name}.png", lambda path: figure.savefig(path, dpi=110, format="png")
        )
        plt.close(figure)

    def panel(axes: Any, log: list[dict[str, Any]], key: str, label: str, colour: str) -> None:
        points = [(line["step"], line[key]) for line in log if key in line]
        axes.plot(*zip(*points), color=colour, label=label, linewidth=1.6)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)

    log = read_log("pretrain", shipped=True)
    if log:
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.7))
        panel(left, log, "classes", "cross-entropy", "C0")
        left.set_title("Pretraining: loss")
        panel(right, log, "top1", "plain images", "C0")
        panel(right, log, "top1_photos", "on held-out backgrounds", "C1")
        right.set_title("Top-1, 500 test garments")
        right.set_ylim(0, 1)
        right.legend(frameon=False)
        for axes in (left, right):
            ends = np.cumsum([phase.steps for phase in PRETRAINING])
            for end in ends[:-1]:
                axes.axvline(end, color="0.7", linewidth=0.8, linestyle=":")
        save(figure, "pretrain")
    for name, title in TITLES.items():
        logs = [("from the pretrained ViT", read_log(name, shipped=True), "C0")]
        logs.append(("from scratch", read_log(f"{name}_scratch", shipped=True), "C3"))
        logs = [log for log in logs if log[1]]
        if not logs:
            continue
        metric = TASKS[name].metric
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.7))
        for label, log, colour in logs:
            panel(left, log, "loss", label, colour)
            panel(right, log, metric, label, colour)
        for axes in (left, right):
            if TASKS[name].small:
                axes.axvline(TASKS[name].small, color="0.7", linewidth=0.8, linestyle=":")
        left.set_title(f"{title}: loss")
        right.set_title(f"{'mIoU' if metric == 'miou' else 'AP50'}, 100 held-out scenes")
        right.set_ylim(0, 1)
        left.legend(frameon=False)
        save(figure, name)


def table(figures: dict[str, Any]) -> str:
    """The table of docs/training.md."""
    rows = ["| model | figure | from the pretrained ViT | from scratch |", "|---|---|---|---|"]
    c, a = figures["classification"], figures["attention"]
    rows.append(f"| classification | top-1, {c['images']} plain test images | {c['top1']:.3f} | |")
    rows.append(
        f"| | top-1, {c['images_photos']} of them on held-out backgrounds "
        f"| {c['top1_photos']:.3f} | |"
    )
    rows.append(
        f"| | attention on garments / their area | {a['mass_on_garments']:.3f} / "
        f"{a['area_of_garments']:.3f} = {a['ratio']:.2f} | |"
    )
    names = {
        "miou": "mIoU, 11 classes",
        "miou_seen": "mIoU, 300 of the training's scenes",
        "pixel_accuracy": "pixel accuracy",
        "garment_against_background_iou": "IoU, garment against background",
        "ap50": "AP50, 10 classes",
        "ap": "AP at IoU 0.50:0.95",
        "ap50_any_class": "AP50, any class",
    }
    for name, title in TITLES.items():
        both = figures.get(name, {})
        first = title
        for key, words in names.items():
            if not any(key in part for part in both.values()):
                continue
            cells = [
                f"{both[start][key]:.3f}" if key in both.get(start, {}) else ""
                for start in ("pretrained", "scratch")
            ]
            rows.append(f"| {first} | {words} | {cells[0]} | {cells[1]} |")
            first = ""
    return "\n".join(rows)


def training_table(figures: dict[str, Any]) -> str:
    """The table of steps and times."""
    rows = ["| run | steps | images a step | seconds | layers in |", "|---|---|---|---|---|"]
    order = ["pretrain", *(name + start for name in TASKS for start in ("", "_scratch"))]
    for run in [run for run in order if run in figures["training"]]:
        facts = figures["training"][run]
        if run == "pretrain":
            sizes = [phase.batch for phase in PRETRAINING]
            batch = f"{min(sizes)} to {max(sizes)}"
        else:
            batch = str(TASKS[run.removesuffix("_scratch")].batch)
        rows.append(
            f"| {run} | {facts['steps']} | {batch} | {facts['seconds']:.0f} "
            f"| {facts.get('precision', 'bfloat16')} |"
        )
    return "\n".join(rows)


def curves() -> None:
    """Draws the curves and puts the tables into docs/training.md, between their marks."""
    draw_curves()
    if not (DOCS.is_file() and FIGURES.is_file()):
        return
    figures = json.loads(FIGURES.read_text())
    text = DOCS.read_text()
    for mark, made in (("figures", table(figures)), ("times", training_table(figures))):
        before, found, rest = text.partition(f"<!-- {mark} -->\n")
        if found:
            text = before + found + made + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    write_whole(DOCS, lambda path: path.write_text(text))


def training_facts(name: str) -> dict[str, Any]:
    """The "training" part of torchvit.json."""
    facts: dict[str, Any] = {"by": "scripts/train.py", "data": "Fashion-MNIST", "images": 60000}
    rate, metric = PRETRAIN_RATE, "top1"
    if name != "pretrain":
        task = TASKS[name]
        rate, metric = task.rate, task.metric
        facts |= {"from": "garments_vit.pt", "data": "scenes/train", "images": 6000}
        facts |= {"batch_size": task.batch, "layer_decay": LAYER_DECAY, "head": "all"}
        if task.frozen:
            facts |= {"freeze": "vit"}
    facts |= {"steps": read_log(name)[-1]["step"], "optimizer": "muon and adamw", "lr": rate}
    facts |= {"weight_decay": 0.05, "schedule": "cosine"}
    facts["precision"] = read_log(name)[-1].get("precision", "bfloat16")
    figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    if name == "pretrain":
        value = figures.get("classification", {}).get(metric)
    else:
        value = figures.get(name, {}).get("pretrained", {}).get(metric)
        facts["validation"] = "scenes/val"
    return facts | ({"metric": metric, "value": value} if value is not None else {})


def export_models() -> None:
    """Writes the model files of whatever is trained and evaluated."""
    import reference_files as files

    torch.set_num_threads(1)
    size, mean = (SIDE, SIDE), [0.5, 0.5, 0.5]
    single = files.photo_bytes(256, sorted(TEST_SCENES.glob("single_*.jpg"))[0])
    # The squarest scene keeps the references small.
    pictures = {path: Image.open(path).size for path in sorted(TEST_SCENES.glob("scene_*.jpg"))}
    scene = files.photo_bytes(112, min(pictures, key=lambda p: max(pictures[p]) / min(pictures[p])))
    spec = files.preprocess_spec(
        size,
        mean,
        mean,
        interpolation="bilinear",
        rule="shortest_edge",
        resize=[SIDE],
        multiple_of=VIT["patch_size"],
    )
    MODELS.mkdir(exist_ok=True)
    if (runs.WORK / "pretrain.pth").is_file():
        files.write_vit(
            pretrained_vit().eval(),
            MODELS / "garments_vit.pt",
            "vision_transformer",
            "classification",
            size,
            True,
            spec,
            g.CLASSES,
            single,
            training=training_facts("pretrain"),
        )
    for name in TASKS:
        if not (runs.WORK / f"{name}.pth").is_file():
            continue
        model, path = finished_model(name, False), MODELS / f"garments_{name}.pt"
        facts = training_facts(name)
        if name == "head":
            head = SegmentationHead(VIT["embed_dim"], len(LABELS), VIT["patch_size"], 1)
            head.load_state_dict(model.segmentation_head.state_dict())
            path = MODELS / "garments_segmentation_head.pt"
            files.write_head(head, path, size, LABELS, training=facts)
        elif name == "faster_rcnn":
            labels = ["__background__", *g.CLASSES]
            files.write_detector(model, path, "vit_faster_rcnn", labels, 0.5, scene, training=facts)
        elif name == "yolo":
            options = {"mean": mean, "std": mean, "training": facts}
            files.write_yolo(model, path, "yolo_grid", size, g.CLASSES, 0.3, **options)
        else:
            kind = "vision_transformer_for_segmentation"
            kind += "_transposed" if name == "deconvolution" else ""
            options = {"training": facts, "reference_bytes": 1_500_000}  # 12 MB are for all of it
            files.write_vit(
                model, path, kind, "segmentation", size, True, spec, LABELS, scene, **options
            )
    for path in sorted(MODELS.glob("*.pt")):
        print(f"{path.name}: {path.stat().st_size} bytes")
        if path.stat().st_size > 12_000_000:
            raise SystemExit(f"{path.name} is larger than 12,000,000 bytes")
