"""Fetches the photos of scikit-image's wheel that the other scripts use.

    .venv/bin/python scripts/fetch_photos.py --out testdata/generated/photos

Only photos whose authors put them in the public domain or under CC0 are taken; see
testdata/images/README.md. The wheel is downloaded with pip and is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "scikit-image==0.26.0"
ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "testdata" / "generated" / "photos"

#: SHA-256 of each file, so that a changed wheel is noticed.
PHOTOS = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}


def fetch(out: Path = DEFAULT) -> Path:
    """Puts the photos into out unless they are there already; returns out."""
    if all((out / name).is_file() for name in PHOTOS):
        return out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", tmp, WHEEL]
        subprocess.run(command, check=True)
        wheel = next(Path(tmp).glob("*.whl"))
        with zipfile.ZipFile(io.BytesIO(wheel.read_bytes())) as archive:
            for name, want in PHOTOS.items():
                data = archive.read(f"skimage/data/{name}")
                got = hashlib.sha256(data).hexdigest()
                if got != want:
                    raise SystemExit(f"{name}: SHA-256 is {got}, want {want}")
                part = out / (name + ".part")
                part.write_bytes(data)
                part.replace(out / name)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT, help="folder (default %(default)s)")
    print(fetch(parser.parse_args().out))


if __name__ == "__main__":
    main()
