"""Images as part of the page."""

import base64
import dataclasses
import io

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

Rgb = UInt8[np.ndarray, "y x 3"]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Encoded, with what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


def encode(pixels: UInt8[np.ndarray, "y x *c"], alt: str, quality: int = 76) -> Picture:
    """As WebP in a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(uri, pixels.shape[1], pixels.shape[0], alt)


def to_bytes(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Of 0 to 1."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def smoothly(pixels: Shaped[np.ndarray, "y x *c"], width: int, height: int) -> Shaped[np.ndarray, "y2 x2 *c"]:
    """Of bytes, or of float32."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def sharply(values: Shaped[np.ndarray, "y x *c"], width: int, height: int) -> Shaped[np.ndarray, "y2 x2 *c"]:
    """Nearest neighbours: for ids."""
    rows = (np.arange(height) + 0.5) * values.shape[0] / height
    columns = (np.arange(width) + 0.5) * values.shape[1] / width
    return values[rows.astype(np.int64)[:, None], columns.astype(np.int64)]


def blend(below: Rgb, above: Rgb, share: Float[np.ndarray, "y x"]) -> Rgb:
    mixed = below + share[..., None] * (above.astype(np.float32) - below)
    return np.rint(mixed).astype(np.uint8)


def grey_rgb(grey: UInt8[np.ndarray, "y x"]) -> Rgb:
    return np.repeat(grey[..., None], 3, -1)
