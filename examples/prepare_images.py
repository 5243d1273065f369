"""Turn uint8 images into the .npz that pconv-onnx takes as --data.

    python prepare_images.py images.npz -o data.npz --input image --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

Images come from an .npz (`images` uint8 [N, H, W, 3], `labels` optional) or from a folder of pictures, one subfolder a
class if they have classes. Each value becomes (value / 255 − mean) / std, in float32.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def read_folder(folder: Path, size: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of a folder in order of their names, uint8 `[N, H, W, 3]`; labels count its sorted subfolders."""
    try:
        from PIL import Image
    except ImportError:
        sys.exit("prepare_images: a folder of pictures needs Pillow: pip install pillow")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    if not files:
        sys.exit(f"prepare_images: '{folder}' holds no pictures ({', '.join(_PICTURES)})")
    images = []
    for path in files:
        try:
            colour = Image.open(path).convert("RGB")
        except OSError as error:
            sys.exit(f"prepare_images: cannot read '{path}': {error}")
        images.append(np.asarray(colour if size is None else colour.resize((size, size))))
    if len({image.shape for image in images}) > 1:
        sys.exit("prepare_images: the pictures differ in size; pass --size")
    if len({path.parent == folder for path in files}) > 1:
        sys.exit(f"prepare_images: '{folder}' holds pictures beside subfolders of pictures; which have classes?")
    classes = {name: index for index, name in enumerate(sorted({path.parent.name for path in files}))}
    labels = np.array([classes[path.parent.name] for path in files]) if files[0].parent != folder else None
    return np.stack(images), labels


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """`images` and `labels` of an .npz file."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # NumPy would take it for a pickle
                sys.exit(f"prepare_images: '{path}' is not an .npz archive")
        with np.load(path) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"prepare_images: cannot read '{path}' as an .npz of plain arrays: {error}")
    if "images" not in arrays:
        sys.exit(f"prepare_images: '{path}' has no array 'images'; it has {', '.join(arrays)}")
    return arrays["images"], arrays.get("labels")


def prepare(images: np.ndarray, mean: list[float], std: list[float], layout: str) -> np.ndarray:
    """`[N, H, W, 3]` uint8 to normalised float32 in that layout."""
    values = (images.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if layout == "NCHW" else values)


def count(text: str) -> int:
    """A number of images."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> None:
    """Read, normalise, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=".npz with images, or a folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--input", default="image", help="name of the model's input (default: image)")
    parser.add_argument("--mean", type=float, nargs=3, default=[0, 0, 0], help="of each colour (default: 0)")
    parser.add_argument("--std", type=float, nargs=3, default=[1, 1, 1], help="of each colour (default: 1)")
    parser.add_argument("--layout", choices=["NCHW", "NHWC"], default="NCHW", help="(default: NCHW)")
    parser.add_argument("--size", type=int, help="resize pictures of a folder to this width and height")
    parser.add_argument("--first", type=count, help="only this many images")
    options = parser.parse_args()
    if not options.source.exists():
        sys.exit(f"prepare_images: there is no '{options.source}'")
    images, labels = read_folder(options.source, options.size) if options.source.is_dir() else read_npz(options.source)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        sys.exit(f"prepare_images: images are {images.dtype} {list(images.shape)}; uint8 [N, H, W, 3] is needed")
    part = slice(options.first)
    arrays = {options.input: prepare(images[part], options.mean, options.std, options.layout)}
    if labels is not None:
        arrays["labels"] = labels[part]
    try:
        with options.output.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        sys.exit(f"prepare_images: cannot write '{options.output}': {error.strerror}")
    print(f"{options.output}: {len(arrays[options.input])} images, {options.layout}, as '{options.input}'")


if __name__ == "__main__":
    main()
