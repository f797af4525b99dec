"""Settings of augmentation and of the choice of patches: each augmentation has a probability and a strength."""

import dataclasses
from typing import Literal

Voxels = tuple[int, int, int]
Widening = Literal["none", "2d", "3d", "faces"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Probabilities are those of a patch, unless the comment says otherwise; strengths are maxima."""

    symmetries: bool = True  # flips and transposes: 16 of them; 48 where voxels are isotropic

    rotate: float = 0.5  # probability; within the section
    rotate_degrees: float = 180.0  # maximum angle, to either side
    scale: float = 0.5  # probability; within the section, y and x alike
    scale_by: float = 1.15  # maximum factor by which a side is stretched or shrunk
    elastic: float = 0.5  # probability; within the section, the same for all sections
    elastic_voxels: float = 3.0  # standard deviation of the control points' displacement, voxels; twice it at most
    elastic_spacing: float = 32.0  # between control points, voxels
    slip: float = 0.2  # probability that one section is displaced
    jump: float = 0.2  # probability that all sections from one on are displaced
    misalign_voxels: int = 12  # maximum displacement of a slip or a jump, y and x each

    volume_contrast: float = 0.3  # on the grey range [0, 1], contrast by 1 +- this
    volume_brightness: float = 0.15  # added, +- this
    volume_gamma: float = 0.3  # exponents up to exp(+- this)
    section_contrast: float = 0.1  # of each section by itself
    section_brightness: float = 0.05  # likewise
    section_gamma: float = 0.1  # likewise
    grey: float = 0.75  # probability of the three on the volume, and again of the three on its sections

    missing_section: float = 0.2  # probability that one section is black
    missing_part: float = 0.2  # probability that one section is black beyond a line
    blurred_section: float = 0.2  # probability that one section is out of focus
    blur_voxels: float = 3.0  # standard deviation
    noise: float = 0.5  # probability
    noise_sigma: float = 0.06  # standard deviation, grey range
    cut_out: float = 0.2  # probability that a box is grey
    cut_out_share: float = 0.3  # maximum share of each side

    def without_section_defects(self) -> "Augmentation":
        """Returns the settings for volumes imaged as a block (FIB-SEM), which lose and displace no sections."""
        off = dict.fromkeys(("slip", "jump", "missing_section", "missing_part", "blurred_section"), 0.0)
        return dataclasses.replace(self, section_contrast=0.0, section_brightness=0.0, section_gamma=0.0, **off)


NOTHING = Augmentation(
    symmetries=False,
    **dict.fromkeys(
        ("rotate", "scale", "elastic", "slip", "jump", "grey", "missing_section", "missing_part", "blurred_section"),
        0.0,
    ),
    noise=0.0,
    cut_out=0.0,
)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which patches are drawn."""

    labelled: float = 0.3  # share of voxels that must be labelled; 0.001 where truth is sparse
    largest: float = 0.7  # share of the labelled voxels that one object may fill
    by_label: bool = False  # draw a labelled voxel first, then a patch around it: for sparse truth
    by_object: bool = False  # draw an object first, whatever its size, then a place in it: thin processes are seen
