"""Exports a tiny model of each source for the test beside it, and checks what only Python sees.

python internal/export/testdata/models.py FOLDER

The files go into the folder; one line of JSON on stdout says what was found. torch is
imported once for all of them, as export.py's command line would for each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import torch  # noqa: E402

import export  # noqa: E402
import modelfile  # noqa: E402
import sources.from_torchvision  # noqa: E402

USER_CODE = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, classes=3):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def make(width=8):
    return Net(width)


class Branches(Net):
    """Scripting refuses **kwargs, and a trace fixes the path that one image took."""

    def forward(self, x, **kwargs):
        y = super().forward(x)
        return {"out": y + float(x.mean()) * 10}
'''


def run(*argv: str) -> tuple[dict[str, Any] | None, str, str]:
    """export.py SOURCE ...: its report, what it wrote to stderr, and how it ended."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            report = export.export(export.source_parser().parse_args(list(argv)))
        except SystemExit as error:
            return None, stderr.getvalue(), str(error)
    return report, stderr.getvalue(), ""


def want(condition: bool, what: str) -> None:
    """Ends the test with what is wrong."""
    if not condition:
        raise SystemExit(what)


TINY = [
    f"--arg={item}"
    for item in (
        "hidden_size=48", "num_hidden_layers=3", "num_attention_heads=3", "intermediate_size=96",
    )
]  # fmt: skip


def hugging_face_folder(folder: Path) -> None:
    """A folder as transformers saves it."""
    import transformers

    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 24],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=24, id2label={0: "sky", 1: "sea", 2: "sand"},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)


def check_methods(path: Path) -> None:
    """The methods of a file of traced parts are transformers' own hidden states and weights."""
    import transformers

    from models.weights import seed_weights

    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
        image_size=64, num_labels=5, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    seed_weights(model, 0)
    module, _, _ = modelfile.load(path)
    for shape in ([1, 3, 64, 64], [2, 3, 48, 96]):
        x = modelfile.noise(shape, 7)
        with torch.inference_mode():
            ours = module.forward_blocks(x, [0, 1, 2])
            weights = module.attentions(x, [0, 1, 2])
            logits, last = module.forward_with_attention(x)
            tokens, _ = module.forward_features(x)
            answer = model(
                pixel_values=x, interpolate_pos_encoding=True,
                output_hidden_states=True, output_attentions=True,
            )  # fmt: skip
        want(
            bool(torch.equal(weights[0], answer.attentions[0])),
            "attention of block 0 differs",
        )
        for i in range(3):
            # transformers computes all blocks unfused here, the file those before the block fused.
            torch.testing.assert_close(weights[i], answer.attentions[i], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(ours[i], answer.hidden_states[i + 1], atol=1e-4, rtol=1e-4)
            want(
                bool(torch.equal(weights[i], module.attention(x, i - 3))),
                "attentions differ",
            )
        torch.testing.assert_close(logits, answer.logits, atol=1e-4, rtol=1e-4)
        want(bool(torch.equal(last, weights[2])), "the last attention differs")
        want(bool(torch.equal(tokens, module.forward_norm(module.forward_blocks(x, [2])[0]))
                  or torch.allclose(tokens, module.forward_norm(ours[2]), atol=1e-5)),
             "forward_norm differs")  # fmt: skip


def check_checkpoints(folder: Path) -> dict[str, Any]:
    """A checkpoint that lacks a parameter, has one too many, and one of the wrong shape."""
    sys.path.insert(0, str(folder))
    (folder / "usercode.py").write_text(USER_CODE)
    import usercode

    torch.manual_seed(5)
    state = usercode.Net(12).state_dict()
    trained = state["body.weight"].clone()
    del state["head.bias"]
    state["extra.weight"] = torch.ones(2)
    torch.save({"state_dict": state}, folder / "net.pth")
    argv = [
        "usercode:make", "--arg", "width=12", "--task", "segmentation", "--input", "1x3x32x48",
        "--checkpoint", str(folder / "net.pth"), "--out", str(folder / "code.pt"),
    ]  # fmt: skip
    report, stderr, end = run(*argv)
    want(
        report is None and not (folder / "code.pt").exists(),
        "a missing parameter was accepted",
    )
    want("1 parameters missing and 0 of the wrong shape" in end, f"got {end}")
    for line in (
        "missing in the checkpoint: head.bias",
        "unexpected in the checkpoint: extra.weight",
    ):
        want(line in stderr, f"want {line!r} in {stderr}")
    report, stderr, end = run(*argv, "--allow-missing")
    want(report is not None, f"--allow-missing ended with {end}")
    module, _, _ = modelfile.load(folder / "code.pt")
    want(
        bool(torch.equal(module.body.weight, trained)),
        "the checkpoint's weights are not in the file",
    )

    report_different, _, end = run(
        "usercode:Branches", "--task", "segmentation", "--input", "1x3x32x32", "--leaf", "out.out",
        "--out", str(folder / "refused.pt"),
    )  # fmt: skip
    want(
        report_different is None and not (folder / "refused.pt").exists(),
        "Branches was accepted",
    )
    want(
        "cannot be exported" in end and "trace: " in end and "script: " in end,
        f"got {end}",
    )
    return report


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    reports: dict[str, Any] = {}

    def add(name: str, *argv: str) -> None:
        report, stderr, end = run(*argv, "--out", str(folder / name))
        want(report is not None, f"{argv}: {end}\n{stderr}")
        reports[name] = report

    add("timm.pt", "timm:test_vit", "--num-classes", "7")
    add("timm_features.pt", "timm:test_resnet", "--features", "--size", "64")
    add(
        "torchvision.pt", "torchvision:ssdlite320_mobilenet_v3_large", "--num-classes", "4",
        "--arg", "score_thresh=0.01",
    )  # fmt: skip
    add("hf.pt", "hf:ViTConfig", "--size", "64", "--num-classes", "5", *TINY)
    add(
        "hf_detection.pt", "hf:yolos", "--size", "64", "--num-classes", "91", *TINY,
        "--arg", "num_detection_tokens=12",
    )  # fmt: skip
    (folder / "segformer").mkdir()
    hugging_face_folder(folder / "segformer")
    add("hf_folder.pt", f"hf:{folder / 'segformer'}")
    add(
        "smp.pt", "smp:Unet+tu-test_resnet", "--size", "64",
        "--arg", "decoder_channels=(16,8,8,8,8)",
    )  # fmt: skip
    reports["code.pt"] = check_checkpoints(folder)
    check_methods(folder / "hf.pt")

    transform = sources.from_torchvision.GeneralizedRCNNTransform(200, 400, [0.5] * 3, [0.5] * 3)
    sizes, known = sources.from_torchvision.agreement(transform)
    want(
        known(*sizes[0]) == "" and "float32" in known(*sizes[-1]),
        "the resize's rounding is not seen",
    )
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
