"""Weights for the reference models: from a local checkpoint, or seeded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List

import torch
from torch import Tensor, nn

from models.vision_transformer import resample_pos_embed

# Position embeddings by timm's, torchvision's and Hugging Face's names.
POSITIONS = ("pos_embed", "pos_embedding", "position_embeddings")


@dataclass
class LoadReport:
    """What a checkpoint held and what it did not."""

    loaded: int = 0
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    mismatched: List[str] = field(default_factory=list)
    resampled: List[str] = field(default_factory=list)

    def lines(self) -> List[str]:
        """The report as text, one fact a line."""
        text = [f"{self.loaded} parameters loaded"]
        text += [f"resampled: {name}" for name in self.resampled]
        text += [f"missing in the checkpoint: {name}" for name in self.missing]
        text += [f"unexpected in the checkpoint: {name}" for name in self.unexpected]
        text += [f"wrong shape in the checkpoint: {name}" for name in self.mismatched]
        return text


def read_checkpoint(path: Path) -> Dict[str, Tensor]:
    """Reads the state dict of a .pt, .pth or .safetensors file.

    The usual wrappings (state_dict, model, teacher, model_ema) and prefixes (module.,
    backbone., encoder.) are taken off. Pickles are read with weights_only=True.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: no such file, want a .pt, .pth or .safetensors checkpoint")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = torch.load(str(path), map_location="cpu", weights_only=True)
        for key in ("state_dict", "model", "teacher", "model_ema"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
                break
    if not isinstance(state, dict):
        raise SystemExit(f"{path}: got a {type(state).__name__}, want a state dict")
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise SystemExit(f"{path}: no tensors found, want a state dict")
    for prefix in ("module.", "backbone.", "encoder."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: v for name, v in tensors.items()}
    return tensors


def load_checkpoint(model: nn.Module, path: Path, core: str = "blocks.") -> LoadReport:
    """Loads what fits by name and shape, and says what did not.

    A position embedding of another, square grid is resampled by timm's rule. A checkpoint
    that fills no parameter with core in its name is an error.
    """
    state = read_checkpoint(path)
    own = model.state_dict()
    report = LoadReport()
    fitting: Dict[str, Tensor] = {}
    for name, value in state.items():
        if name not in own:
            report.unexpected.append(name)
            continue
        if name.endswith("pos_embed") and value.shape != own[name].shape:
            fitted = fit_pos_embed(model, value, own[name])
            if fitted is not value:
                value = fitted
                report.resampled.append(name)
        if value.shape != own[name].shape:
            got, want = tuple(value.shape), tuple(own[name].shape)
            report.mismatched.append(f"{name}: got {got}, want {want}")
            continue
        fitting[name] = value.to(own[name].dtype)
    report.loaded = len(fitting)
    # Batch norm counts batches for training alone, and old checkpoints lack it.
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    report.missing = [name for name in own if name not in state and name not in counters]
    if not any(core in name for name in fitting):
        what = "block" if core else "parameter"
        raise SystemExit(
            f"{path}: no {what} of the model is in this checkpoint; it has "
            + ", ".join(sorted(state)[:5])
            + " ..."
        )
    model.load_state_dict(fitting, strict=False)
    return report


def fit_pos_embed(model: nn.Module, value: Tensor, want: Tensor) -> Tensor:
    """Resamples a position embedding of a square grid to the model's grid; else leaves it."""
    owner = model if hasattr(model, "grid_size") else getattr(model, "patch_embed", model)
    new = [int(v) for v in getattr(owner, "grid_size", [])]
    if len(new) != 2:
        return value
    prefix = want.shape[1] - new[0] * new[1]
    side = round(max(0, value.shape[1] - prefix) ** 0.5)
    if prefix < 0 or side == 0 or side * side + prefix != value.shape[1]:
        return value
    return resample_pos_embed(value, prefix, [side, side], new)


def seed_weights(model: nn.Module, seed: int, gain: float = 1.0) -> None:
    """Fills every parameter and buffer with seeded values that keep all paths alive.

    Matrices get a normal of 1/sqrt(fan in), so that attention is not flat; biases, norms,
    layer scales and tokens are away from 0 and 1; heads are not zeros. gain scales the
    matrices.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, std: float) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            leaf = name.split(".")[-1]
            if parameter.numel() == 0:
                continue
            if "token" in leaf or leaf in POSITIONS:
                parameter.copy_(normal(parameter.shape, 0.5))
            elif leaf == "gamma":  # layer scale
                parameter.copy_(0.5 + normal(parameter.shape, 0.1))
            elif parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(normal(parameter.shape, gain * fan_in**-0.5))
            elif leaf == "weight":  # norms
                parameter.copy_(1 + normal(parameter.shape, 0.1))
            else:
                parameter.copy_(normal(parameter.shape, 0.1))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(normal(buffer.shape, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(1 + normal(buffer.shape, 0.1).abs())
