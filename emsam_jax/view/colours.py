"""Colours objects: the same id has the same colour everywhere, and objects that touch have distant ones."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Integer, UInt8, UInt64

_GOLDEN = 0.6180339887498949  # of the circle of hues: any run of its multiples is spread evenly
_COLOURS = 48
_TRIES = 12  # colours that an object may choose from
Rgb = tuple[int, int, int]
SPLIT: Rgb = (38, 132, 255)  # cut off from the neuron it belongs to
MERGE: Rgb = (255, 92, 40)  # joined to a neuron it doesn't belong to
BOTH: Rgb = (188, 96, 214)  # cut off here and joined there: shifted borders, exchanged pieces
UNSEGMENTED: Rgb = (240, 200, 70)  # the segmentation says nothing
MAIN: Rgb = (206, 211, 219)  # an object's largest piece: pale, so that the others stand out
PIECES: tuple[Rgb, ...] = ((42, 116, 224), (228, 84, 40), (150, 78, 196), (0, 158, 140), (216, 60, 124))
REST: Rgb = (122, 126, 134)  # all smaller pieces
_STEPS = np.arange(_COLOURS)


class Colouring:
    """Colours of the ids in some sections: a hash chooses, and chooses again where a neighbour would look alike."""

    def __init__(self, sections: Iterable[Integer[np.ndarray, "y x"]]):
        pairs = np.concatenate([_touching(section) for section in sections])
        self.ids, ends = np.unique(pairs, return_inverse=True)
        first, second = ends.reshape(pairs.shape).T
        neighbours: list[list[int]] = [[] for _ in self.ids]
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            neighbours[a].append(b)
            neighbours[b].append(a)
        wishes = mixed(self.ids[:, None] + mixed(np.arange(_TRIES))[None]) % np.uint64(_COLOURS)
        self.colour = np.full(self.ids.size, -1)
        for i in sorted(range(self.ids.size), key=lambda i: -len(neighbours[i])):  # who touches most chooses first
            taken = [c for c in self.colour[neighbours[i]].tolist() if c >= 0]
            distance = _DISTANCES[wishes[i]][:, taken].min(1, initial=1.0) if taken else np.ones(_TRIES)
            good = distance > 0.8 * distance.max()
            self.colour[i] = wishes[i][good.argmax()]

    def __call__(self, ids: Integer[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """Returns colours; ids that touch nothing have the colour of their hash."""
        ids, colours = ids.astype(np.uint64), colours_of(ids)
        if self.ids.size:
            at = np.searchsorted(self.ids, ids).clip(max=self.ids.size - 1)
            known = self.ids[at] == ids
            colours[known] = _PALETTE[self.colour[at[known]]]
        return colours


def colours_of(ids: Integer[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Returns colours by the hash alone, whatever the neighbours are."""
    return _PALETTE[mixed(ids) % np.uint64(_COLOURS)]


def mixed(ids: Integer[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Hashes by splitmix64, so that consecutive ids have nothing in common."""
    value = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _touching(ids: Integer[np.ndarray, "y x"]) -> UInt64[np.ndarray, "pairs 2"]:
    """Lists pairs of ids that are neighbours, each once; 0 is left out."""
    ids = ids.astype(np.uint64)
    pairs = []
    for a, b in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        differ = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack([a[differ], b[differ]], -1), 1))
    return np.unique(np.concatenate(pairs), axis=0)


def _oklab(lightness: Float[np.ndarray, " n"], chroma: Float[np.ndarray, " n"], hue: Float[np.ndarray, " n"]):
    """Converts Oklch to Oklab, in both of which equal steps look equal; hue is a share of the circle."""
    return np.stack([lightness, chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)], -1)


def _to_srgb(lab: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
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
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_linear.T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * gamma).astype(np.uint8)


_LAB = _oklab(0.60 + 0.10 * (_STEPS % 3), 0.14 + 0.03 * (_STEPS // 3 % 2), _GOLDEN * _STEPS % 1)
_PALETTE = _to_srgb(_LAB)
_DISTANCES = np.linalg.norm(_LAB[:, None] - _LAB[None], axis=-1)
