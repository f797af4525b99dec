"""Makes isotropic tissue with exact labels as a focused ion beam shows it, of another appearance for each seed.

Little noise and sections that resemble their neighbours; dark and pale cells, sheets that wrap other cells, and
mitochondria, vesicles and vacuoles whose membranes are no cell's border.
"""

from typing import NamedTuple

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing
from jaxtyping import Int, UInt32

from emsam_jax.volumes.synthetic.appearance import Appearance, draw_settings
from emsam_jax.volumes.synthetic.neurites import Anatomy, Triple, claim, grow, smooth_noise, tidy
from emsam_jax.volumes.synthetic.tissue import Image, Synthetic, depths

_SMALLEST = 1e6  # nm^3 of an object


def ion_beam_volume(
    shape: tuple[int, int, int],
    seed: int,
    voxel_size_zyx: Triple = (10.0, 10.0, 10.0),
    *,
    anatomy: Anatomy | None = None,
    appearance: Appearance | None = None,
) -> Synthetic:
    """Makes a volume [z, y, x] of settings drawn from the seed, or of those given."""
    drawn = draw_settings(seed)
    anatomy, appearance = anatomy or drawn[0], appearance or drawn[1]
    rng = np.random.default_rng(seed)
    z, y, x = (n * spacing for n, spacing in zip(shape, voxel_size_zyx, strict=True))
    balls = grow(rng, (z, y, x), anatomy)
    nearest, bent = claim(rng, balls, shape, voxel_size_zyx, anatomy, classes=3)
    neurites = balls.neurites[nearest].astype(np.uint32) + 1
    wrapped = _wrapped(rng, neurites, voxel_size_zyx, appearance)
    labels = tidy(wrapped, smallest=max(int(_SMALLEST / np.prod(voxel_size_zyx)), 8))
    organelles = balls.mitochondria.astype(np.float32)[nearest]
    within = organelles[..., 3] - np.linalg.norm(bent - organelles[..., :3], axis=-1)
    cells = _Cells(
        labels=labels,
        sheets=wrapped != neurites,
        depth=depths(labels, voxel_size_zyx),
        # Far from borders `claim` looks up every fourth voxel only: smoothing takes the steps away.
        mitochondria=gaussian_smoothing(np.clip(within, -120, 120), 2.5),
        across=bent[..., 1],
        boutons=balls.boutons[nearest] > 0,
    )
    image = _imaged(rng, _stained(rng, cells, voxel_size_zyx, appearance), voxel_size_zyx, appearance)
    return Synthetic(np.clip(np.rint(255 * image), 0, 255).astype(np.uint8), labels, voxel_size_zyx)


class _Cells(NamedTuple):
    labels: UInt32[np.ndarray, "z y x"]
    sheets: np.ndarray  # whether a sheet is here
    depth: Image  # nm to the border
    mitochondria: Image  # nm within a mitochondrion; negative: outside
    across: Image  # a bent coordinate, nm
    boutons: np.ndarray  # whether vesicles gather here


def _wrapped(
    rng: np.random.Generator, labels: UInt32[np.ndarray, "z y x"], voxel_size: Triple, appearance: Appearance
) -> UInt32[np.ndarray, "z y x"]:
    """Gives the outer layer of some neurites to a sheet: one more object, in as many pieces as there are."""
    count = int(labels.max())
    chosen = rng.random(count + 1) < appearance.sheets
    if not chosen.any():
        return labels
    extent = smooth_noise(rng, labels.shape, voxel_size, 700.0)
    width = appearance.sheet_width * np.clip(0.9 + 0.6 * extent, 0, 1.8)
    return np.where(chosen[labels] & (depths(labels, voxel_size) < width), np.uint32(count + 1), labels)


def _stained(rng: np.random.Generator, cells: _Cells, voxel_size: Triple, appearance: Appearance) -> Image:
    """Returns what a perfect microscope would see, in [0, 1]."""
    look, depth = appearance, cells.depth

    def noise(grain: float | int) -> Image:
        return smooth_noise(rng, depth.shape, voxel_size, float(grain))

    count = int(cells.labels.max()) + 1
    greys = look.cytoplasm + look.variety * rng.standard_normal(count, dtype=np.float32)
    greys -= look.darker * (rng.random(count) < look.dark).astype(np.float32)
    greys = np.clip(greys, look.membrane + 0.08, 0.9)
    patches = noise(500)
    image = np.where(cells.sheets, look.cytoplasm + look.sheet_grey, greys[cells.labels])
    image += look.texture * (0.8 * noise(look.grain) + 0.5 * noise(2.5 * look.grain) + 0.3 * patches)

    # The reticulum: thin curved sheets, where a slow field passes zero, in patches of the larger neurites.
    image -= look.reticulum * ((np.abs(noise(240)) < 0.06) & (patches > 0.2) & (depth > 50))

    volume = float(np.prod(voxel_size))
    vesicles = _places(rng, cells.boutons & (depth > 40) & (cells.mitochondria < 0), look.vesicles * volume)
    dense = rng.random(len(vesicles)) < look.dense
    for at, full in zip(vesicles, dense, strict=True):
        core = look.membrane if full else None
        _place(image, at, voxel_size, radius=float(rng.uniform(16, 30)), membrane=look.membrane, fill=core)
    vacuoles = _places(rng, (depth > 100) & (cells.mitochondria < -60), look.vacuoles * volume)
    for at in vacuoles:
        radius = float(rng.uniform(0.3, 0.9) * min(depth[tuple(at)], 250))
        fill = float(look.cytoplasm + 0.12 * rng.standard_normal()) if rng.random() < 0.7 else None
        _place(image, at, voxel_size, radius=radius, membrane=look.membrane, fill=fill)

    inside = np.minimum(cells.mitochondria + 12 * noise(120), depth - look.margin)
    matrix = look.mitochondrion + look.variety / 3 * rng.standard_normal(count, dtype=np.float32)
    waves = np.sin(cells.across / 20 + 2 * noise(120)) + 0.5 * noise(35)
    filled = matrix[cells.labels] + look.cristae * waves + 0.5 * look.texture * noise(look.grain)
    filled = np.where(inside < 15, np.minimum(filled, look.membrane + 0.03), filled)
    image += np.clip(inside / 10 + 0.5, 0, 1) * (filled - image)

    synapse = np.clip(3 * (noise(230) - look.synapses), 0, 1)
    width = look.membrane_width * (1 + 0.15 * noise(90)) * (1 + 1.2 * synapse)
    density = 1 / (1 + np.exp(np.clip((depth - width) / look.softness, -30, 30)))
    density *= np.clip(1 - look.faintness * (0.5 + noise(250)), 0.15, 1.1)
    density *= 1 - look.gap * np.exp(-((depth / 9) ** 2)) * np.clip(0.5 + noise(300), 0, 1) * (1 - synapse)
    return image + density * (look.membrane - 0.06 * synapse - image)


def _places(rng: np.random.Generator, where: np.ndarray, density: float) -> Int[np.ndarray, "n 3"]:
    """Draws voxels from those marked, of a density per voxel."""
    candidates = np.flatnonzero(where)
    drawn = candidates[rng.random(len(candidates)) < density]
    return np.stack(np.unravel_index(drawn, where.shape), axis=1)


def _place(
    image: Image,
    at: Int[np.ndarray, " 3"],
    voxel_size: Triple,
    *,
    radius: float,
    membrane: float,
    fill: float | None,
) -> None:
    """Draws a ball with a membrane into the image; without a fill what is there shines through."""
    reach = [int((radius + 20) / spacing) + 1 for spacing in voxel_size]
    box = tuple(slice(max(int(c) - r, 0), int(c) + r + 1) for c, r in zip(at, reach, strict=True))
    part = image[box]
    axes = [
        ((np.arange(side.start, side.start + n) - c) * spacing) ** 2
        for side, n, c, spacing in zip(box, part.shape, at, voxel_size, strict=True)
    ]
    outside = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2]) - radius
    if fill is not None:
        part += np.clip(0.5 - outside / 10, 0, 1).astype(np.float32) * (np.float32(fill) - part)
    part += np.exp(-((outside / 9) ** 2)).astype(np.float32) * (np.float32(membrane) - part)


def _imaged(rng: np.random.Generator, image: Image, voxel_size: Triple, appearance: Appearance) -> Image:
    """Blurs by the point spread, adds noise, and varies the stain over micrometres and from section to section."""
    n, look = len(image), appearance
    image = gaussian_smoothing(image.astype(np.float32), look.blur)
    image += look.unevenness * smooth_noise(rng, image.shape, voxel_size, 1500.0)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    if any(look.noise_blur):
        grain = gaussian_smoothing(grain, [max(sigma, 0.01) for sigma in look.noise_blur])
    image += look.noise * np.sqrt(np.clip(2 * image, 0.1, None)) * grain
    gain, offset = look.sections * rng.standard_normal((2, n, 1, 1), dtype=np.float32)
    return image + gain * (image - 0.5) + 0.5 * offset
