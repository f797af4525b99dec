"""Colours of objects: far apart for ids that are near, and the same for the same id everywhere."""

import numpy as np
from jaxtyping import Float, Integer, UInt8, UInt64

_GOLDEN = 0.6180339887498949  # of the circle of hues: any run of its multiples is spread evenly
_COLOURS = 512

Rgb = tuple[int, int, int]

SPLIT: Rgb = (38, 132, 255)  # cut off from the neuron it belongs to
MERGE: Rgb = (255, 92, 40)  # joined to a neuron it doesn't belong to
BOTH: Rgb = (188, 96, 214)  # cut off here and joined there: shifted borders, exchanged pieces
UNSEGMENTED: Rgb = (240, 200, 70)  # the segmentation says nothing
MAIN: Rgb = (206, 211, 219)  # an object's largest piece: pale, so that the others stand out
PIECES: tuple[Rgb, ...] = ((42, 116, 224), (228, 84, 40), (150, 78, 196), (0, 158, 140), (216, 60, 124))
REST: Rgb = (122, 126, 134)  # all smaller pieces


def colours_of(ids: Integer[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """A colour for each id."""
    return _palette()[mixed(ids) % np.uint64(_COLOURS)]


def mixed(ids: Integer[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Hashed by splitmix64, so that ids in a row have nothing in common."""
    value = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _palette() -> UInt8[np.ndarray, "colours 3"]:
    steps = np.arange(_COLOURS)
    return oklch(0.62 + 0.09 * (steps % 3), 0.11 + 0.04 * (steps // 3 % 2), _GOLDEN * steps % 1)


def oklch(
    lightness: Float[np.ndarray, " n"], chroma: Float[np.ndarray, " n"], hue: Float[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n 3"]:
    """SRGB of colours in Oklch, in which equal steps look equal; hue as a share of the circle."""
    a, b = chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)
    to_cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    linear = np.clip((np.stack([lightness, a, b], -1) @ to_cones.T) ** 3 @ to_linear.T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * gamma).astype(np.uint8)
