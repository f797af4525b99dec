"""Makes EM-like tissue with exact labels: neurites, stained, cut into sections, blurred and given noise.

What makes such a volume hard is there as in life: membranes fade where they run oblique to the section, and
mitochondria, vesicles and the reticulum are as dark as membranes are.
"""

import dataclasses
from typing import NamedTuple

import bioimage_cpp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from emsam_jax.volumes.axes import is_isotropic
from emsam_jax.volumes.synthetic.neurites import Anatomy, Balls, Triple, claim, grow, smooth_noise, tidy

Image = Float[np.ndarray, "z y x"]


@dataclasses.dataclass(frozen=True)
class Stain:
    """Grey values on [0, 1] and sizes in nm."""

    cytoplasm: float = 0.68
    variety: float = 0.045  # of cytoplasm between neurites
    texture: float = 0.06  # of cytoplasm within one
    membrane: float = 0.32
    membrane_width: float = 22.0
    mitochondrion: float = 0.42
    vesicles: float = 2.5e-5  # per nm^3 of bouton: how many
    noise: float = 0.1  # standard deviation at middle grey; it grows with the square root of the brightness
    blur: float = 0.7  # standard deviation of the point spread, voxels
    defects: float = 0.0  # share of sections that are missing, faint, stained over or displaced


class Synthetic(NamedTuple):
    raw: UInt8[np.ndarray, "z y x"]
    labels: UInt32[np.ndarray, "z y x"]  # 1.., every voxel labelled, every object in one piece
    voxel_size_zyx: Triple


def synthetic_volume(
    shape: tuple[int, int, int],
    seed: int,
    voxel_size_zyx: Triple = (40.0, 8.0, 8.0),
    *,
    anatomy: Anatomy | None = None,
    stain: Stain | None = None,
) -> Synthetic:
    """Makes a volume [z, y, x]; the same arguments give the same volume."""
    anatomy, stain = anatomy or Anatomy(), stain or Stain()
    rng = np.random.default_rng(seed)
    z, y, x = (n * spacing for n, spacing in zip(shape, voxel_size_zyx, strict=True))
    balls = grow(rng, (z, y, x), anatomy)
    nearest, bent = claim(rng, balls, shape, voxel_size_zyx, anatomy)
    labels = tidy(balls.neurites[nearest].astype(np.uint32) + 1, smallest=max(int(1e7 / np.prod(voxel_size_zyx)), 8))
    depth = depths(labels, voxel_size_zyx)
    image = _stained(
        rng,
        balls=balls,
        nearest=nearest,
        bent=bent,
        labels=labels,
        depth=depth,
        voxel_size=voxel_size_zyx,
        stain=stain,
    )
    image = _imaged(rng, image, stain)
    if stain.defects:
        image = _spoilt(rng, image, stain.defects)
    return Synthetic(np.clip(np.rint(255 * image), 0, 255).astype(np.uint8), labels, voxel_size_zyx)


def depths(labels: UInt32[np.ndarray, "z y x"], voxel_size: Triple) -> Image:
    """Returns the distance in nm to the object's border: in the section where sections are thick, else in space."""
    inner = np.ones(labels.shape, bool)
    axes = (0, 1, 2) if is_isotropic(voxel_size) else (1, 2)
    for axis in axes:
        differs = np.diff(labels, axis=axis) != 0
        before, after = [slice(None)] * 3, [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        inner[tuple(before)] &= ~differs
        inner[tuple(after)] &= ~differs
    if len(axes) == 3:
        return _distance(inner, voxel_size) + voxel_size[2] / 2
    sections = [_distance(section, voxel_size[1:]) for section in inner]
    return np.minimum(np.stack(sections), 1e4) + voxel_size[2] / 2


def _distance(inner: Bool[np.ndarray, "..."], voxel_size: tuple[float, ...]) -> Float[np.ndarray, "..."]:
    return np.asarray(bioimage_cpp.distance.distance_transform(inner, voxel_size, number_of_threads=2))


def membranes(labels: UInt32[np.ndarray, "z y x"], depth: Image, voxel_size: Triple, width: Image) -> Image:
    """Returns the share of each voxel's slab that is membrane: borders are followed from section to section, so that
    an oblique one is wide and faint.
    """
    density = np.zeros(labels.shape, np.float32)
    heights = np.linspace(-0.4, 0.4, 5)
    for height in heights:
        step = 1 if height > 0 else -1
        beyond = np.clip(np.arange(len(labels)) + step, 0, len(labels) - 1)
        signed = np.where(labels[beyond] == labels, depth[beyond], -depth[beyond])
        slope = np.float32(0) if is_isotropic(voxel_size) else (signed - depth) / voxel_size[0]
        distance = np.abs(depth + abs(height) * (signed - depth)) / np.sqrt(1 + slope**2)
        density += np.clip((width - distance) / (0.4 * width), 0, 1)
    return density / len(heights)


def _stained(
    rng: np.random.Generator,
    *,
    balls: Balls,
    nearest: Int[np.ndarray, "z y x"],
    bent: Float[np.ndarray, "z y x 3"],
    labels: UInt32[np.ndarray, "z y x"],
    depth: Image,
    voxel_size: Triple,
    stain: Stain,
) -> Image:
    """Returns what a perfect microscope would see, in [0, 1]."""

    def noise(grain: int) -> Image:
        return smooth_noise(rng, labels.shape, voxel_size, float(grain))

    greys = stain.cytoplasm + stain.variety * rng.standard_normal(int(labels.max()) + 1, dtype=np.float32)
    image = greys[labels] + stain.texture * (0.6 * noise(40) + 0.6 * noise(16) + 0.3 * noise(400))

    # The reticulum: thin curved sheets, where a slow field passes zero, in patches of the larger neurites.
    reticulum = (np.abs(noise(260)) < 0.05) & (noise(700) > 0.2) & (depth > 50)
    image -= 0.26 * reticulum

    # Vesicles: rings of 45 nm in the boutons.
    bouton = (balls.boutons[nearest] > 0) & (depth > 45)
    volume = float(np.prod(voxel_size))
    centres = rng.random(labels.shape, dtype=np.float32) < stain.vesicles * volume * bouton
    if centres.any():
        radius = _distance(~centres, voxel_size)
        image -= 0.3 * np.exp(-(((radius - 17) / 7) ** 2)).astype(np.float32)

    # Mitochondria: a dark rim, a grey matrix, cristae across.
    organelle = balls.mitochondria[nearest].astype(np.float32)
    inside = organelle[..., 3] - np.linalg.norm(bent - organelle[..., :3], axis=-1)
    inside = np.minimum(inside + 8 * noise(80), depth - 25)
    cristae = np.sin(bent[..., 1] / 11 + 2.5 * noise(150)) + 0.5 * noise(30)
    matrix = stain.mitochondrion + 0.1 * cristae + 0.04 * noise(16)
    matrix = np.where(inside < 18, stain.membrane + 0.08, matrix)
    image = np.where(inside > 0, matrix, image)

    # Membranes, thicker and darker at the synapses.
    synapse = np.clip(4 * (noise(220) - 1.7), 0, 1)
    faint = np.clip(0.88 + 0.3 * noise(300), 0.3, 1.2)
    density = membranes(
        labels, depth, voxel_size, stain.membrane_width * (0.62 + 0.6 * synapse) * (1 + 0.15 * noise(60))
    )
    darkness = np.clip(density * faint, 0, 1)
    return image + darkness * (stain.membrane - 0.1 * synapse - image)


def _imaged(rng: np.random.Generator, image: Image, stain: Stain) -> Image:
    """Blurs, adds shot noise, and varies brightness and contrast of the sections a little."""
    blurred = np.stack([bioimage_cpp.filters.gaussian_smoothing(section, stain.blur) for section in image])
    n = len(image)
    gain, offset = 1 + 0.04 * rng.standard_normal((n, 1, 1)), 0.015 * rng.standard_normal((n, 1, 1))
    noisy = blurred + stain.noise * np.sqrt(np.clip(2 * blurred, 0.1, None)) * rng.standard_normal(
        image.shape, dtype=np.float32
    )
    return (0.5 + gain.astype(np.float32) * (noisy - 0.5) + offset.astype(np.float32)).astype(np.float32)


def _spoilt(rng: np.random.Generator, image: Image, share: float) -> Image:
    """Spoils sections: missing, faint, stained over in a blot, or displaced by a few voxels; labels stay."""
    z, y, x = image.shape
    for section in np.flatnonzero(rng.random(z) < share):
        match rng.integers(4):
            case 0:
                image[section] = 0
            case 1:
                image[section] = 0.5 + 0.25 * (image[section] - 0.5)
            case 2:
                blot = smooth_noise(rng, (1, y, x), (1.0, 1.0, 1.0), float(max(y, x) / 3))[0]
                image[section] = np.where(blot > 0.5, 0.08 + 0.1 * image[section], image[section])
            case _:
                image[section] = np.roll(image[section], rng.integers(-12, 13, 2), (0, 1))
    return image
