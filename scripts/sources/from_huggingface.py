"""hf:FOLDER-or-config: Hugging Face transformers, from a local folder or a configuration.

``hf:FOLDER`` reads config.json, preprocessor_config.json and the weights there; ``hf:vit`` and
``hf:ViTConfig`` make the model from its configuration, with --arg for its fields and seeded
weights. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.weights import read_checkpoint, seed_weights
from sources import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    default_labels,
    demand,
    first_line,
    keyword_args,
    need,
    pair,
    spec,
    tell,
)

# What a processor says of itself; None is no.
PROCESSOR_FIELDS = (
    "size", "crop_size", "crop_pct", "resample", "keep_aspect_ratio", "ensure_multiple_of",
    "do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std", "include_top",
)  # fmt: skip
PILLOW_FILTERS = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
# Whose answers have a "no object" class at the end, and softmax over them.
SOFTMAX_DETECTORS = ("detr", "yolos", "table-transformer")
# Where a model can do more than one thing and segmentation is what it is known for.
SEGMENTERS = ("segformer", "dpt", "upernet")
# Plain ViTs, whose files get the methods of the reference model.
PLAIN_VITS = ("vit", "deit", "dinov2", "dinov2_with_registers", "vit_msn", "ijepa")
# Image processors of models that transformers names none for.
PROCESSORS = {
    "dinov2_with_registers": "BitImageProcessor",
    "ijepa": "ViTImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
    "table-transformer": "DetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
}


# Processors whose arithmetic a preprocess of torchvit.json does not have.
FLOAT_RESIZERS = ("DINOv3", "RfDetr")


class Answer(nn.Module):
    """A transformers model that takes pixels alone and gives the named tensors alone."""

    def __init__(self, model: nn.Module, names: list[str], flip: bool, **kwargs: Any) -> None:
        super().__init__()
        self.model, self.names, self.flip, self.kwargs = model, names, flip, kwargs

    def forward(self, pixels: Tensor) -> Any:
        if self.flip:  # the model wants BGR
            pixels = pixels.flip(1)
        answer = self.model(pixel_values=pixels, **self.kwargs)
        tensors = tuple(answer[name] for name in self.names)
        return tensors[0] if len(tensors) == 1 else tensors


def load(name: str, args: argparse.Namespace) -> Source:
    """Makes the source of hf:NAME."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = need("transformers", "transformers", "hf:" + name)
    transformers.logging.set_verbosity_error()
    # A folder may have the name of a model type too.
    folder = Path(name) if (Path(name) / "config.json").is_file() else None
    config = read_config(transformers, name, folder, args)
    task, model_class = choose_class(transformers, config, args.task)
    model = create(model_class, config, folder, args)
    processor = choose_processor(transformers, config, folder, args.size)

    kind, names = "logits", ["logits"]
    if task == "segmentation":
        kind = "segmentation_logits"
    elif task == "detection":
        softmax = config.model_type in SOFTMAX_DETECTORS
        kind = "set_prediction" if softmax else "set_prediction_sigmoid"
        names = ["logits", "pred_boxes"]
    elif task == "features":
        kind, names = "features", ["last_hidden_state"]
    described = processor_spec(processor, f"hf:{name}")
    size = native_size(config, described, args.size)
    flip = bool(getattr(processor, "do_flip_channel_order", False))
    extra = {}
    if accepts(model, "interpolate_pos_encoding") and not args.fixed_size:
        extra["interpolate_pos_encoding"] = True
    count = int(config.num_labels)
    source = Source(
        model=Answer(model, names, flip, **extra),
        architecture=name if folder is None else config.model_type,
        task=task,
        kind=kind,
        size=size,
        step=step_of(config),
        preprocess=described,
        labels=[] if task == "features" else labels_of(config, task, count),
        modes=("trace",),
        leaves=["out.0", "out.1"] if task == "detection" else [],
    )
    if task == "detection":
        source.thresholds = {"score": 0.5}
    if processor is not None:

        def prepare(image: Any) -> Tensor:
            pixels = processor(images=image, return_tensors="pt")["pixel_values"][0]
            return pixels.flip(0) if flip else pixels

        source.processor = prepare
        if type(processor).__name__.startswith(FLOAT_RESIZERS):
            source.notes.append("the library's own processor divides by 255 before it resizes")
    else:
        source.notes.append("no image processor is known: ImageNet's mean and standard deviation")
    if task == "classification" and config.model_type in PLAIN_VITS and not args.fixed_size:
        give_methods(source, model, config)
    return source


def read_config(transformers: Any, name: str, folder: Path | None, args: Any) -> Any:
    """The configuration, with --arg and --num-classes over it."""
    kwargs = keyword_args(args.arg)
    if args.num_classes is not None:
        kwargs["num_labels"] = args.num_classes
    try:
        if folder is not None:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            for key, value in kwargs.items():
                setattr(config, key, value)
            return config
        mapping = transformers.CONFIG_MAPPING
        config_class = getattr(transformers, name, None)
        if name in mapping:
            config_class = mapping[name]
        if not (
            isinstance(config_class, type)
            and issubclass(config_class, transformers.PreTrainedConfig)
        ):
            raise SystemExit(
                f"hf:{name}: want a folder with config.json, a model type such as vit, or a "
                "configuration's class such as ViTConfig"
            )
        default = getattr(config_class(), "image_size", None)
        if args.size is not None and default is not None:
            height, width = args.size
            square = isinstance(default, int) and height == width
            kwargs.setdefault("image_size", height if square else [height, width])
        return config_class(**with_backbone(transformers, config_class, kwargs))
    except Exception as error:
        raise SystemExit(
            f"hf:{name}: its configuration cannot be made: {first_line(error)}"
        ) from None


def with_backbone(transformers: Any, config_class: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """A backbone given as a dict becomes a configuration; one that would be downloaded from
    timm becomes transformers' own ResNet."""
    backbone = kwargs.get("backbone_config")
    if isinstance(backbone, dict):
        fields = dict(backbone)
        kwargs["backbone_config"] = transformers.CONFIG_MAPPING[fields.pop("model_type")](**fields)
    elif backbone is None:
        default = getattr(config_class(), "backbone_config", None)
        if getattr(default, "model_type", "") == "timm_backbone":
            kwargs["backbone_config"] = transformers.ResNetConfig(
                out_features=["stage2", "stage3", "stage4"]
                if config_class.model_type in ("deformable_detr",)
                else ["stage4"]
            )
    return kwargs


def choose_class(transformers: Any, config: Any, task: str | None) -> tuple[str, Any]:
    """The task and the model's class: of config.architectures, of --task, else what the model
    is known for."""
    from transformers.models.auto import modeling_auto as auto

    mappings = {
        "detection": auto.MODEL_FOR_OBJECT_DETECTION_MAPPING,
        "segmentation": auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
        "classification": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        "features": auto.MODEL_MAPPING,
    }

    def candidates(kind: str) -> list[Any]:
        found = mappings[kind].get(type(config), ())
        return list(found) if isinstance(found, (tuple, list)) else [found]

    if task is not None and task not in mappings:
        raise SystemExit(f"--task {task}: want one of {', '.join(mappings)}")
    named = list(getattr(config, "architectures", None) or [])
    order = [task] if task else ["detection", "classification", "segmentation"]
    if config.model_type in SEGMENTERS and not task:
        order = ["segmentation", "classification"]
    for kind in order:  # what the folder says
        for found in candidates(kind):
            if found.__name__ in named:
                return kind, found
    for kind in order:
        found = candidates(kind)
        if found:
            return kind, found[0]
    raise SystemExit(
        f"hf:{config.model_type}: transformers has no model of it for {' or '.join(order)}"
    )


def create(model_class: Any, config: Any, folder: Path | None, args: Any) -> nn.Module:
    """The model with weights of the folder, of --checkpoint, or seeded."""
    what = str(args.checkpoint or folder)
    kwargs: dict[str, Any] = {"config": config, "output_loading_info": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if args.checkpoint is not None:
                kwargs["state_dict"] = read_checkpoint(args.checkpoint)
                model, info = model_class.from_pretrained(
                    None, ignore_mismatched_sizes=True, **kwargs
                )
            elif folder is not None:
                model, info = model_class.from_pretrained(
                    folder, local_files_only=True, ignore_mismatched_sizes=True, **kwargs
                )
            else:
                model = model_class(config)
                seed_weights(model, args.seed)
                return model.eval()
    except Exception as error:
        raise SystemExit(f"hf:{config.model_type}: cannot be made: {first_line(error)}") from None
    missing = sorted(info["missing_keys"])
    mismatched = sorted(m if isinstance(m, str) else m[0] for m in info["mismatched_keys"])
    names = [n for n, _ in model.named_parameters()] + [n for n, _ in model.named_buffers()]
    count = len([n for n in names if n not in missing and n not in mismatched])
    text = [f"{count} parameters loaded"]
    text += [f"missing in the checkpoint: {n}" for n in missing]
    text += [f"unexpected in the checkpoint: {n}" for n in sorted(info["unexpected_keys"])]
    text += [f"wrong shape in the checkpoint: {n}" for n in mismatched]
    tell(what, text)
    demand(what, len(missing), len(mismatched), args.allow_missing)
    lacking = set(missing) | set(mismatched)
    if lacking:
        fresh = copy.deepcopy(model)
        seed_weights(fresh, args.seed)
        values = fresh.state_dict()
        model.load_state_dict({n: values[n] for n in lacking if n in values}, strict=False)
    return model.eval()


def accepts(model: nn.Module, name: str) -> bool:
    """Whether the model's forward has that argument."""
    import inspect

    with contextlib.suppress(TypeError, ValueError):
        return name in inspect.signature(model.forward).parameters
    return False


def choose_processor(transformers: Any, config: Any, folder: Path | None, size: Any) -> Any:
    """The image processor of the folder, else the model's default one at the model's size."""
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type) or {}
    name = names.get("torchvision") or PROCESSORS.get(config.model_type)
    if name is None:
        return None
    processor = getattr(transformers, name)()
    wanted = size or getattr(config, "image_size", None)
    if wanted is None:
        return processor
    height, width = pair(wanted)
    old = dict(processor.size or {})
    crop = (
        getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", 0) else None
    )
    changes: dict[str, Any] = {}
    if crop:
        short = old.get("shortest_edge") or old.get("height")
        scaled = round(short * height / crop["height"])
        changes["crop_size"] = {"height": height, "width": width}
        changes["size"] = (
            {"shortest_edge": scaled}
            if "shortest_edge" in old
            else {"height": scaled, "width": round(scaled * width / height)}
        )
    elif "height" in old:
        changes["size"] = {"height": height, "width": width}
    elif old.get("longest_edge"):
        changes["size"] = {"shortest_edge": height, "longest_edge": height * 1333 // 800}
    elif "shortest_edge" in old:
        changes["size"] = {"shortest_edge": height}
    return getattr(transformers, name)(**changes)


def processor_spec(processor: Any, what: str) -> dict[str, Any]:
    """An image processor of transformers as data."""
    if processor is None:
        return spec("none", [], IMAGENET_MEAN, IMAGENET_STD)
    c = {name: getattr(processor, name) for name in PROCESSOR_FIELDS if hasattr(processor, name)}
    backend = "torch" if getattr(processor, "backend", "torchvision") == "torchvision" else "pil"
    rule, size, max_size, multiple = "none", [], 0, 0
    crop, z = None, dict(c.get("size") or {})
    kind = type(processor).__name__
    edge = int(z.get("shortest_edge") or 0)
    if c.get("do_resize") and z:
        if kind.startswith("ConvNext"):
            if edge < 384:
                rule, size = "shortest_edge", [int(edge / float(c.get("crop_pct") or 224 / 256))]
                crop = [edge, edge]
            else:
                rule, size = "exact", [edge, edge]
        elif kind.startswith("PoolFormer") and edge:
            rule, size = "shortest_edge", [int(edge / float(c.get("crop_pct") or 1))]
        elif kind.startswith("Levit") and edge:
            rule, size = "shortest_edge", [int(256 / 224 * edge)]
        elif edge and z.get("longest_edge"):
            rule, size, max_size = "detr", [edge], int(z["longest_edge"])
            if kind.startswith("Yolos"):
                rule, multiple = "yolos", 16
        elif edge:
            rule, size = "shortest_edge", [edge]
        elif z.get("longest_edge"):
            rule, size = "longest_edge", [int(z["longest_edge"])]
        elif z.get("max_height"):
            rule, size = "max_edges", [int(z["max_height"]), int(z["max_width"])]
        elif c.get("keep_aspect_ratio"):
            rule, size = "dpt", list(pair(z))
            multiple = int(c.get("ensure_multiple_of") or 1)
        else:
            rule, size = "exact", list(pair(z))
            multiple = int(c.get("ensure_multiple_of") or 0)
            multiple = multiple if multiple > 1 else 0
    if c.get("do_center_crop") and c.get("crop_size") and crop is None:
        crop = list(pair(dict(c["crop_size"])))
    factor = float(c.get("rescale_factor") or 1 / 255)
    if not c.get("do_rescale") or abs(factor * 255 - 1) > 1e-9:
        raise SystemExit(f"{what}: {kind} does not divide by 255: not supported")
    mean, std = c.get("image_mean") or [0.5] * 3, c.get("image_std") or [0.5] * 3
    mean = [mean] * 3 if isinstance(mean, float) else list(mean)
    std = [std] * 3 if isinstance(std, float) else list(std)
    if c.get("include_top") and kind.startswith("EfficientNet"):
        std = [v * v for v in std]  # it divides by the standard deviation twice
    normalize = "fused" if backend == "torch" else "torchvision"
    if not c.get("do_normalize"):
        # The torchvision processors multiply by 1/255, which torch rounds unlike a division.
        mean, std = [0.0] * 3, [1.0] * 3
        normalize = "torchvision_v2" if backend == "torch" else "none"
    resample = c.get("resample")
    filter_name = PILLOW_FILTERS[int(resample)] if resample is not None else "bilinear"
    return spec(
        rule, size, mean, std, filter_name, backend, max_size, multiple,
        crop, "center_floor", None, normalize,
    )  # fmt: skip


def native_size(config: Any, described: dict[str, Any], size: Any) -> tuple[int, int]:
    """The size that the model was made for: its own, else what its processor gives."""
    if size is not None:
        return size
    own = getattr(config, "image_size", None)
    if own is not None:
        return pair(own)
    if described["crop"]["rule"] != "none":
        return pair(described["crop"]["size"])
    if described["resize"]["size"]:
        height, width = pair(described["resize"]["size"])
        return height, width
    return 224, 224


def step_of(config: Any) -> int:
    """What sizes to try are multiples of."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and patch >= 8:
        return patch
    return 32


def labels_of(config: Any, task: str, count: int) -> list[str]:
    """id2label, or the data set's that has so many classes where it holds none."""
    names = {int(k): str(v) for k, v in (config.id2label or {}).items()}
    labels = [names.get(i, f"class {i}") for i in range(count)]
    if all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
        return default_labels(task, count)
    return labels


class Block(nn.Module):
    """One layer of a ViT, and the same with attention weights, to be traced."""

    def __init__(self, layer: nn.Module, config: Any) -> None:
        super().__init__()
        self.layer, self.config = layer, config

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """transformers' own unfused attention, whose weights a hook catches."""
        caught: list[Tensor] = []
        hook = self.layer.attention.register_forward_hook(
            lambda module, inputs, answer: caught.append(answer[1])
        )
        kept = self.config._attn_implementation
        try:
            self.config._attn_implementation = "eager"
            x = self.layer(x)
        finally:
            self.config._attn_implementation = kept
            hook.remove()
        return x, caught[0]


class Embed(nn.Module):
    """The embeddings at any size, to be traced."""

    def __init__(self, embeddings: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.embeddings, self.kwargs = embeddings, kwargs

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(x, **self.kwargs)


class Given(nn.Module):
    """Stands in for the encoder: what is given as pixels are its tokens."""

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(
            last_hidden_state=pixel_values, pooler_output=pixel_values[:, 0]
        )


class Head(nn.Module):
    """All that a classifier does after its encoder, to be traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = dict(model._modules)
        self.model._modules[model.base_model_prefix] = Given()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(pixel_values=tokens)["logits"]


def give_methods(source: Source, model: nn.Module, config: Any) -> None:
    """Gives a plain ViT the methods of the reference model, through traced parts."""
    from models.traced_vit import TracedVisionTransformer
    from sources.check import without_stacks

    base = getattr(model, model.base_model_prefix)
    layers = find_layers(base)
    if layers is None:
        return
    patch = pair(config.patch_size)
    prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
    if config.model_type == "deit":
        prefix = 2
    if config.model_type == "ijepa":
        prefix = 0
    extra = {}
    import inspect

    if "interpolate_pos_encoding" in inspect.signature(base.embeddings.forward).parameters:
        extra["interpolate_pos_encoding"] = True

    def traced(module: nn.Module, methods: dict[str, Any]) -> torch.jit.ScriptModule:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.jit.trace_module(module.eval(), methods, strict=False, check_trace=False)
        return without_stacks(made)

    def build() -> torch.jit.ScriptModule:
        # Neither square nor the model's own size, so that nothing of it is fixed.
        x = torch.zeros(2, 3, 3 * patch[0], 5 * patch[1])
        embed = traced(Embed(base.embeddings, **extra), {"forward": (x,)})
        with torch.no_grad():
            tokens = base.embeddings(x, **extra)
        blocks = [
            traced(
                Block(layer, layer.attention.config),
                {"forward": (tokens,), "forward_with_attention": (tokens,)},
            )
            for layer in layers
        ]
        head = traced(Head(model), {"forward": (tokens,)})
        norm = base.layernorm
        vit = TracedVisionTransformer(
            embed, blocks, norm, head, patch, prefix,
            int(config.hidden_size), int(config.num_attention_heads),
        )  # fmt: skip
        return torch.jit.script(vit.eval())

    plain = Source(**{**vars(source)})
    plain.notes = [*source.notes, "forward alone, without the methods of a ViT"]
    source.plain, source.build, source.modes = plain, build, ("parts",)
    source.methods = True
    source.multiple_of = patch[0]
    source.tokens = {
        "patch_size": list(patch),
        "prefix": prefix,
        "num_heads": int(config.num_attention_heads),
        "depth": len(layers),
        "embed_dim": int(config.hidden_size),
    }


def find_layers(base: nn.Module) -> Any:
    """The blocks of a ViT, wherever they are kept."""

    def places() -> Iterator[Any]:
        encoder = getattr(base, "encoder", None)
        for owner in (base, encoder):
            for name in ("layers", "layer"):
                yield getattr(owner, name, None)

    for found in places():
        if isinstance(found, nn.ModuleList) and all(hasattr(b, "attention") for b in found):
            return found
    return None
