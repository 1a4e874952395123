"""An image as a tensor: decoded, cropped, resized, scaled. The door to Pillow, in the worker alone.

The same image gives the same numbers with the same release of Pillow; others decode a JPEG with
differences in the last bit.
"""

import io

import numpy as np

from wire.errors import Malformed, Oversize
from wire.tensors import Tensor

PIXELS_MAX = 40_000_000
SIDE_MAX = 1024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def image_tensor(
    data: bytes, size: tuple[int, int], *, crop: bool, grey: bool, channels_last: bool
) -> np.ndarray:
    """float64 of 0 to 255, [channels, height, width] or channels last; `size` is width, height.

    With `crop` the middle is taken, so that nothing is stretched. Malformed, Oversize.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise Malformed(
            "images need a package that is not installed: pip install '.[images]'"
        ) from error
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
        if opened.width * opened.height > PIXELS_MAX:
            raise Oversize(
                f"an image of {opened.width} by {opened.height}, at most {PIXELS_MAX} pixels"
            )
        image = ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
        if crop:
            fitted = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        else:
            fitted = image.resize(size, Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        raise Malformed(f"it is no image of {', '.join(FORMATS)}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Malformed(f"the image cannot be read: {error}") from error
    pixels = np.asarray(fitted, np.float64).reshape(size[1], size[0], 1 if grey else 3)
    return pixels if channels_last else pixels.transpose(2, 0, 1)


def to_tensor(values: np.ndarray, kind: str, name: str = "x") -> Tensor:
    """An array as a tensor, its numbers little-endian."""
    array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return Tensor(name=name, kind=kind, shape=array.shape, data=array.tobytes())
