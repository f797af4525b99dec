"""Encodes images for the page, and draws solid-looking pictures of objects in space."""

import base64
import dataclasses
import io
import math

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from PIL import Image

Rgb = UInt8[np.ndarray, "y x 3"]
_LIGHT = (0.80, 0.42, 0.42)  # from the viewer, from above, from the left
_AMBIENT = 0.40
_FAR = 0.40  # of its brightness is what the farthest voxel loses
_ROUNDING = 1.2  # pixels, standard deviation: voxels have no corners in life


@dataclasses.dataclass(frozen=True)
class Picture:
    """An encoded image, with its description in words."""

    uri: str
    width: int
    height: int
    alt: str


def encode(pixels: UInt8[np.ndarray, "y x *c"], alt: str, quality: int = 76) -> Picture:
    """Encodes as WebP in a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(uri, pixels.shape[1], pixels.shape[0], alt)


def to_bytes(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Converts values in [0, 1] to bytes."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def smoothly(pixels: Shaped[np.ndarray, "y x *c"], width: int, height: int) -> Shaped[np.ndarray, "y2 x2 *c"]:
    """Resizes bytes or float32 smoothly."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def sharply(values: Shaped[np.ndarray, "y x *c"], width: int, height: int) -> Shaped[np.ndarray, "y2 x2 *c"]:
    """Resizes ids by nearest neighbours."""
    rows = (np.arange(height) + 0.5) * values.shape[0] / height
    columns = (np.arange(width) + 0.5) * values.shape[1] / width
    return values[rows.astype(np.int64)[:, None], columns.astype(np.int64)]


def blend(below: Rgb, above: Rgb, share: Float[np.ndarray, "y x"]) -> Rgb:
    mixed = below + share[..., None] * (above.astype(np.float32) - below)
    return np.rint(mixed).astype(np.uint8)


def grey_rgb(grey: UInt8[np.ndarray, "y x"]) -> Rgb:
    return np.repeat(grey[..., None], 3, -1)


def draw_surface(
    pieces: Integer[np.ndarray, "z y x"],
    colours: UInt8[np.ndarray, "n 3"],
    voxel_size_zyx: tuple[float, float, float],
    side: int,
) -> UInt8[np.ndarray, "height width 4"]:
    """Draws the voxels with a piece above 0, seen from where most of them show; transparent around them.

    A pixel has the colour of the piece that most of the voxels behind it belong to (the skin alone would show how
    borders differ); the first piece counts a quarter, or it would hide the others. `side` is the number of pixels of
    the longer side.
    """
    axis = _broadest(pieces > 0, voxel_size_zyx)
    seen = np.moveaxis(pieces, axis, 0)
    high, wide = (size for i, size in enumerate(voxel_size_zyx) if i != axis)
    extent = seen.shape[1] * high, seen.shape[2] * wide
    scale = side / max(extent)  # pixels a nm
    height, width = (max(8, round(length * scale)) for length in extent)

    inside = seen > 0
    depths = inside.argmax(0) * np.float32(voxel_size_zyx[axis] * scale)
    silhouette = np.asarray(inside.any(0))
    votes = np.stack([(seen == piece).sum(0) for piece in range(1, len(colours))])
    votes[0] //= 4
    votes[0] = np.maximum(votes[0], silhouette & ~votes[1:].any(0))
    shown = np.where(silhouette, votes.argmax(0) + 1, 0)

    light = _light(depths.astype(np.float32), silhouette, height, width)
    alpha = smoothly(to_bytes(silhouette.astype(np.float32)), width, height)
    weighted = smoothly(colours[shown] * silhouette[..., None].astype(np.uint8), width, height)
    solid = np.asarray(weighted / np.maximum(alpha[..., None], 1) * light[..., None])
    return np.dstack([to_bytes(solid), alpha])


def _broadest(inside: Bool[np.ndarray, "z y x"], voxel_size_zyx: tuple[float, float, float]) -> int:
    """Returns the axis along which the silhouette is largest."""
    volume = math.prod(voxel_size_zyx)
    areas = [float(inside.any(axis).sum()) * volume / voxel_size_zyx[axis] for axis in range(3)]
    return int(np.argmax(areas))


def _light(
    depths: Float[np.ndarray, "y x"], silhouette: Bool[np.ndarray, "y x"], height: int, width: int
) -> Float[np.ndarray, "{height} {width}"]:
    """Shades by Lambert's law the surface that the depths describe, all in pixels; what is far is darker."""
    weight = gaussian_smoothing(silhouette.astype(np.float32), _ROUNDING)
    rounded = gaussian_smoothing(np.where(silhouette, depths, 0).astype(np.float32), _ROUNDING) / np.maximum(
        weight, 1e-3
    )
    far = float(rounded[silhouette].max(initial=0))
    depth = smoothly(np.where(silhouette, rounded, far).astype(np.float32), width, height)
    down, right = np.gradient(depth)
    towards, above, left = _LIGHT
    lambert = (towards + above * down + left * right) / np.sqrt(1 + down**2 + right**2)
    away = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-6)
    return (_AMBIENT + (1 - _AMBIENT) * np.clip(lambert, 0, 1)) * (1 - _FAR * away)
