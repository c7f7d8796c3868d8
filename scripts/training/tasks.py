"""The four models that are fine-tuned, and the head alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms
from torchvision.transforms import functional as TF

import garments as g
import preprocess
from models.detection import vit_faster_rcnn
from models.segmentation import VisionTransformerForSegmentation
from models.vision_transformer import VisionTransformer
from models.yolo import VisionTransformerYOLO, decode
from models.yolo_loss import yolo_loss
from training import runs
from training.runs import (
    SIDE,
    VIT,
    Run,
    layer_precision,
    new_vit,
    normalised,
    parameter_groups,
    seeds,
    training_embed,
    windowed_embed,
)
from training.scenes import (
    LABELS,
    SCENES,
    Found,
    Scenes,
    coco,
    detection_figures,
    scene_batch,
    segmentation_figures,
    shuffled,
)

#: Of the rate from block to block towards the input, when the ViT is pretrained.
LAYER_DECAY = 0.85
SMALL = 96
#: What a step with images of SMALL pixels costs, as a part of one with images of SIDE.
SMALL_COST = 0.6


@dataclass
class Task:
    """One fine-tuning stage."""

    make: Callable[[nn.Module], nn.Module]  # the model around a ViT without a classifier
    loss: Callable[..., dict[str, Tensor]]
    figures: Callable[..., dict[str, Any]]
    small: int  # steps with images of SMALL pixels, which come first
    large: int  # steps with images of SIDE
    batch: int = 16
    rate: float = 2e-3
    metric: str = "miou"
    frozen: bool = False  # only the head is trained, and only on the pretrained ViT


def make_segmentation(head: str) -> Callable[[nn.Module], nn.Module]:
    """A segmentation model with the ViT's weights."""

    def make(vit: nn.Module) -> nn.Module:
        model = VisionTransformerForSegmentation(num_classes=len(LABELS), **VIT, head=head)
        model.load_state_dict(vit.state_dict(), strict=False)
        return model

    return make


def segmentation_loss(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """Cross-entropy of the pixels, and half of 1 - Dice of the classes over the batch, from
    every second pixel of every second row."""
    with layer_precision():
        logits = model(normalised(images))
    logits = logits.float()
    some, truth = logits[:, :, ::2, ::2], masks[:, ::2, ::2]
    seen = (truth != 255)[:, None]
    shares = some.softmax(1) * seen
    wanted = F.one_hot(truth.where(truth != 255, 0), len(LABELS)).permute(0, 3, 1, 2) * seen
    both = (shares * wanted).sum((0, 2, 3))
    dice = 2 * both / (shares.sum((0, 2, 3)) + wanted.sum((0, 2, 3))).clamp(min=1)
    there = wanted.sum((0, 2, 3)) > 0
    return {
        "pixels": F.cross_entropy(logits, masks, ignore_index=255),
        "dice": 0.5 * (1 - dice[there].mean()),
    }


def segmentation_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of a segmentation model, at the size that it sees."""
    return segmentation_figures(model, scenes.images[:count], scenes.masks)


def make_faster_rcnn(vit: nn.Module) -> nn.Module:
    """Faster R-CNN over two levels of the ViT's pyramid, of strides 4 and 8."""
    return vit_faster_rcnn(
        vit,
        num_classes=len(LABELS),
        out_channels=48,
        scales=(2, 1),
        anchor_sizes=(40, 60, 84),
        representation_size=128,
        min_size=SIDE,
        max_size=2 * SIDE,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        rpn_top_n=100,
        box_score_thresh=0.05,
        box_detections_per_img=20,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
    )


def faster_rcnn_loss(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """torchvision's four losses."""
    targets = [{"boxes": b, "labels": v} for b, v in zip(boxes, labels)]
    # The detector's own resizing is for images of any size; these have theirs.
    model.transform.min_size = (images.shape[2],)
    with layer_precision():
        losses = model(list(images), targets)
    model.transform.min_size = (SIDE,)
    return {name.removeprefix("loss_"): value.float() for name, value in losses.items()}


def faster_rcnn_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of Faster R-CNN."""

    def found(i: int) -> Found:
        answer = model([scenes.images[i].float() / 255])[0]
        return answer["boxes"], answer["scores"], answer["labels"]

    return detection_figures(coco("val"), found, scenes, count)


#: k-means with IoU over the boxes of the training scenes, at the size that the model sees.
YOLO_ANCHORS = [
    [(25.0, 56.0), (56.0, 32.0), (35.0, 65.0)],
    [(44.0, 55.0), (61.0, 50.0), (51.0, 68.0)],
    [(75.0, 43.0), (66.0, 81.0), (84.0, 64.0)],
]


def make_yolo(vit: nn.Module) -> nn.Module:
    """The YOLO-style head on three levels, of strides 4, 8 and 16."""
    model = VisionTransformerYOLO(vit, len(g.CLASSES), YOLO_ANCHORS, channels=64)
    for predict in model.predict:
        # Few of the predictions are of an object.
        predict.bias.data.view(-1, 5 + len(g.CLASSES))[:, 4] = -4.0
    return model


def yolo_losses(
    model: nn.Module, images: Tensor, masks: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> dict[str, Tensor]:
    """The three parts of the grid's loss, weighted."""
    with layer_precision():
        levels = model(normalised(images))
    total, parts = yolo_loss(
        levels, boxes, [v - 1 for v in labels], YOLO_ANCHORS, *images.shape[2:], **YOLO_WEIGHTS
    )
    # The log shows the parts; only the total has gradients.
    return {"total": total, **parts}


YOLO_WEIGHTS = {"box_weight": 1.0, "objectness_weight": 2.0, "class_weight": 3.0}


LETTERBOX = {
    "resize": {"rule": "letterbox", "size": [SIDE, SIDE]},
    "normalize": "torchvision",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def yolo_found(model: nn.Module, image: Path | Tensor, score: float = 0.05) -> Found:
    """The boxes of one image, after suppression within each class; a tensor is uint8."""
    if isinstance(image, Path):
        picture = preprocess.decode(image)
    else:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    ratio = min(SIDE / picture.height, SIDE / picture.width)
    width, height = round(picture.width * ratio), round(picture.height * ratio)
    left, top = round((SIDE - width) / 2 - 0.1), round((SIDE - height) / 2 - 0.1)
    levels = model(preprocess.to_tensor(picture, LETTERBOX)[None])
    y = decode([level.float() for level in levels], model.anchors, SIDE, SIDE)[0]
    scores, labels = (y[:, 4:5] * y[:, 5:]).max(1)
    kept = scores > score
    y, scores, labels = y[kept], scores[kept], labels[kept] + 1
    boxes = torch.cat([y[:, :2] - y[:, 2:4] / 2, y[:, :2] + y[:, 2:4] / 2], dim=1)
    best = batched_nms(boxes, scores, labels, 0.5)[:50]
    offset = torch.tensor([left, top, left, top])
    return (boxes[best] - offset) / ratio, scores[best], labels[best]


def yolo_check(model: nn.Module, scenes: Scenes, count: int) -> dict[str, Any]:
    """Figures of the YOLO-style detector."""
    return detection_figures(
        coco("val"), lambda i: yolo_found(model, scenes.images[i]), scenes, count
    )


TASKS = {
    "segmentation": Task(
        make_segmentation("linear"), segmentation_loss, segmentation_check, small=1200, large=500
    ),
    "faster_rcnn": Task(
        make_faster_rcnn, faster_rcnn_loss, faster_rcnn_check, small=1000, large=500, metric="ap50"
    ),
    "deconvolution": Task(
        make_segmentation("transposed"),
        segmentation_loss,
        segmentation_check,
        small=600,
        large=250,
    ),
    "yolo": Task(make_yolo, yolo_losses, yolo_check, small=600, large=250, metric="ap50"),
    "head": Task(
        make_segmentation("linear"),
        segmentation_loss,
        segmentation_check,
        small=0,
        large=400,
        rate=3e-3,
        frozen=True,
    ),
}


def pretrained_vit() -> VisionTransformer:
    """The pretrained ViT with its classifier, without what only pretraining had: the one
    trained here, otherwise the shipped one."""
    path, shipped = runs.WORK / "pretrain.pth", runs.MODELS / "garments_vit.pt"
    vit = VisionTransformer(num_classes=len(g.CLASSES), **VIT)
    if path.is_file():
        state = torch.load(path, weights_only=True)
    elif shipped.is_file():
        print(f"no pretraining of its own: the ViT is {shipped.relative_to(runs.ROOT)}")
        state = torch.jit.load(shipped).state_dict()
    else:
        raise SystemExit("no pretrained ViT yet: --stage pretrain")
    vit.load_state_dict({k: v for k, v in state.items() if not k.startswith("patch_head.")})
    return vit


def start_model(task: Task, scratch: bool, seed: int) -> nn.Module:
    """The model before its fine-tuning; the head starts the same in both cases."""
    vit = new_vit(seed, 0)
    if not scratch:
        state = pretrained_vit().state_dict()
        vit.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    torch.manual_seed(seed + 1)
    return task.make(vit)


def fine_tune(name: str, scratch: bool, seed: int, train_set: Scenes, held_out: Scenes) -> Run:
    """The run of one fine-tuning stage."""
    task = TASKS[name]
    steps = task.small + task.large
    model = start_model(task, scratch, seed)
    vit = getattr(model, "vit", model.backbone.vit if hasattr(model, "backbone") else model)
    if task.frozen:
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_("segmentation_head" in parameter_name)

    def loss(step: int) -> dict[str, Tensor]:
        rng = seeds(seed, 2, step)
        picks = shuffled(len(train_set.images), task.batch, step, seed)
        side = SMALL if step < task.small else SIDE
        batch = scene_batch(train_set, picks, side, rng)
        largest = 0 if rng.random() < 0.7 else 24
        with training_embed(vit, windowed_embed(vit, rng, largest)):
            return task.loss(model, *batch)

    def cost(step: int) -> float:
        return SMALL_COST * min(step, task.small) + max(step - task.small, 0)

    def check(step: int) -> dict[str, float]:
        figures = task.figures(model, held_out, 100)
        return {task.metric: figures[task.metric]}

    return Run(
        name=f"{name}_scratch" if scratch else name,
        model=model,
        groups=parameter_groups(model, 1.0 if scratch else LAYER_DECAY),
        rate=task.rate,
        warmup=50,
        steps=steps,
        progress=lambda step: cost(step) / cost(steps),
        loss=loss,
        check=check,
        every=max(steps // 200 * 20, 20),  # a line of the log is of 20 steps
        seed=seed,
    )


def finished_model(name: str, scratch: bool) -> nn.Module:
    """A fine-tuned model in evaluation mode."""
    run = f"{name}_scratch" if scratch else name
    torch.manual_seed(0)
    model = TASKS[name].make(VisionTransformer(num_classes=0, **VIT))
    model.load_state_dict(torch.load(runs.WORK / f"{run}.pth", weights_only=True))
    return model.eval()


def final_figures(name: str, model: nn.Module, scenes: Scenes) -> dict[str, Any]:
    """Figures of a fine-tuned model on every held-out scene, in the scene's own pixels and
    with the preprocessing of the exported file."""
    truth = coco("val")
    paths = [SCENES / "val" / truth.imgs[number]["file_name"] for number in scenes.ids]
    if TASKS[name].metric == "miou":

        def masks() -> Iterable[Tensor]:
            for number in scenes.ids:
                entry = truth.imgs[number]
                mask = torch.zeros(entry["height"], entry["width"], dtype=torch.uint8)
                for annotation in truth.loadAnns(truth.getAnnIds(number)):
                    shape = torch.from_numpy(truth.annToMask(annotation)) > 0
                    mask[shape] = annotation["category_id"]
                yield mask

        return segmentation_figures(model, scenes.images, masks())
    own = dataclasses.replace(scenes, scales=[torch.ones(2)] * len(scenes.ids))

    def found(i: int) -> Found:
        if name == "yolo":
            return yolo_found(model, paths[i])
        image = TF.to_tensor(preprocess.decode(paths[i]))
        answer = model([image])[0]
        return answer["boxes"], answer["scores"], answer["labels"]

    return detection_figures(truth, found, own)
