"""What a user declares about a volume, as plain dataclasses for configs."""

import dataclasses

# The id of CREMI's voxels outside the annotated region. No neuron ever has it.
CREMI_OUTSIDE = 0xFFFFFFFFFFFFFFFD


@dataclasses.dataclass
class Intensity:
    """The raw values that become 0 and 1 for the model."""

    low: float = 0.0  # becomes 0
    high: float = 0.0  # becomes 1; not above `low`: the largest value of the type (1 for floats)
    percentiles: bool = False  # `low` and `high` are percentiles of the volume, 0 to 100, not values
    invert: bool = False  # for contrast in which membranes are bright


@dataclasses.dataclass
class LabelRules:
    """The ids that are no neurons. Voxels beyond the labels or outside the mask are unlabelled as well."""

    background: tuple[int, ...] = (0,)  # membrane, extracellular space: known not to be a neuron
    unlabelled: tuple[int, ...] = (CREMI_OUTSIDE,)  # nobody knows; comes before background


@dataclasses.dataclass
class DeclaredVolume:
    """A raw volume with its labels and mask, which may lie elsewhere, at other levels and with other extents."""

    name: str = ""  # in reports; the raw's path if empty
    raw: str = ""  # anything that open_volume takes
    labels: str = ""  # likewise; empty: none
    mask: str = ""  # likewise; labels count where it is not 0; empty: everywhere
    raw_level: int = 0  # of the pyramid, 0 is the finest
    labels_level: int = 0  # likewise
    mask_level: int = 0  # likewise
    raw_voxel_size_zyx: tuple[int | float, ...] = ()  # nm; empty: as the file says
    labels_voxel_size_zyx: tuple[int | float, ...] = ()  # nm; empty: as the file says, or else the raw's
    mask_voxel_size_zyx: tuple[int | float, ...] = ()  # nm; likewise
    raw_offset_zyx: tuple[int | float, ...] = ()  # nm, near corner of the first voxel; empty: as the file says
    labels_offset_zyx: tuple[int | float, ...] = ()  # nm; likewise
    mask_offset_zyx: tuple[int | float, ...] = ()  # nm; likewise
    roi: str = ""  # z0:z1,y0:y1,x0:x1 in voxels of the raw; empty: all of it
    intensity: Intensity = dataclasses.field(default_factory=Intensity)
    rules: LabelRules = dataclasses.field(default_factory=LabelRules)
