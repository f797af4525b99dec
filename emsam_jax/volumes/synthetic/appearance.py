"""How tissue looks under a focused ion beam, and what differs between laboratories, animals and microscopes."""

import dataclasses

import numpy as np

from emsam_jax.volumes.synthetic.neurites import Anatomy, Triple


@dataclasses.dataclass(frozen=True)
class Appearance:
    """Grey values and standard deviations on [0, 1], and sizes in nm where nothing else is said."""

    cytoplasm: float = 0.55
    variety: float = 0.09  # of cytoplasm between neurites
    dark: float = 0.12  # share of dark neurites
    darker: float = 0.14  # than the others
    texture: float = 0.045  # of cytoplasm within one
    grain: float = 45.0  # of the texture
    membrane: float = 0.26
    membrane_width: float = 20.0  # of the membrane on one side of a border
    softness: float = 5.0  # over which a membrane fades into cytoplasm
    faintness: float = 0.2  # of membranes, over places
    gap: float = 0.3  # brightness of the space between two membranes: 0 as dark as they, 1 as cytoplasm
    mitochondrion: float = 0.27
    cristae: float = 0.02  # contrast
    margin: float = 30.0  # between a mitochondrion and the border
    vesicles: float = 1e-5  # per nm^3 of bouton
    dense: float = 0.5  # share of vesicles with a dark core
    vacuoles: float = 3e-9  # per nm^3: bodies with a membrane of their own
    reticulum: float = 0.12  # contrast
    synapses: float = 1.7  # standard deviations beyond which borders are stained dark, and wide
    sheets: float = 0.12  # share of neurites that thin sheets of other cells wrap
    sheet_width: float = 60.0
    sheet_grey: float = -0.12  # against other cytoplasm
    unevenness: float = 0.02  # of the stain, over micrometres
    blur: Triple = (1.0, 0.9, 0.9)  # standard deviation of the point spread, voxels
    noise: float = 0.03  # at middle grey, before `noise_blur`
    noise_blur: Triple = (0.0, 0.0, 0.6)  # voxels: the beam's neighbours share a part of it
    sections: float = 0.006  # of brightness and contrast between sections


def draw_settings(seed: int) -> tuple[Anatomy, Appearance]:
    """Draws a tissue's anatomy and appearance from ranges that leave any one data set in their middle."""
    rng = np.random.default_rng((seed, 1))

    def between(low: float | int, high: float | int) -> float:
        return float(rng.uniform(low, high))

    def factor(low: float | int, high: float | int) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    anatomy = Anatomy(
        radius=factor(45, 125),
        radius_spread=between(0.4, 0.9),
        radius_range=(35.0, between(500, 1000)),
        bend=between(0.1, 0.3),
        branch=between(0.02, 0.06),
        waviness=factor(35, 90),
        mitochondria=factor(0.05, 0.3),
        boutons=between(0, 0.06),
        mitochondrion_fill=(0.45, between(0.7, 0.95)),
        mitochondrion_girth=(50.0, between(200, 500)),
    )
    cytoplasm = between(0.45, 0.7)
    membrane = cytoplasm - between(0.2, 0.4)
    appearance = Appearance(
        cytoplasm=cytoplasm,
        variety=between(0.02, 0.12),
        dark=between(0, 0.25),
        darker=between(0.08, 0.22),
        texture=factor(0.025, 0.11),
        grain=factor(18, 70),
        membrane=membrane,
        membrane_width=between(12, 28),
        softness=between(3, 9),
        faintness=between(0.05, 0.35),
        gap=between(0, 0.6),
        mitochondrion=membrane + between(-0.04, 0.18),
        cristae=factor(0.005, 0.06),
        margin=between(15, 45),
        vesicles=factor(2e-6, 3e-5),
        dense=between(0, 1),
        vacuoles=factor(1e-9, 1e-8),
        reticulum=between(0, 0.25),
        synapses=between(1.3, 2.2),
        sheets=between(0, 0.25),
        sheet_width=between(40, 90),
        sheet_grey=between(-0.25, 0.1),
        unevenness=between(0, 0.04),
        blur=(between(0.6, 1.6), plane := between(0.5, 1.3), plane),
        noise=factor(0.012, 0.09),
        noise_blur=(0.0, between(0, 0.5), between(0, 0.8)),
        sections=between(0, 0.02),
    )
    return anatomy, appearance
