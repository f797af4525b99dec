"""Published results, to be shown with our scores; a config or a flag names the table."""

import dataclasses
from typing import NamedTuple

from emsam_jax.errors import UserError


class Standing(NamedTuple):
    """VOI in bits, the adapted Rand error, and remarks."""

    method: str
    voi_split: float
    voi_merge: float
    arand: float
    note: str = ""

    @property
    def voi(self) -> float:
        return self.voi_split + self.voi_merge


@dataclasses.dataclass(frozen=True)
class Standings:
    data: str
    part: str  # that all rows were scored on
    source: str
    rows: tuple[Standing, ...]


STANDINGS = {
    "ac3ac4": Standings(
        data="AC3/AC4 (mouse cortex, 6 x 6 x 30 nm)",
        part="the first 100 sections of AC3; trained on AC4",
        source=(
            "The field's papers on this split: Superhuman (Lee et al., 2017, arXiv:1706.00120), PEA (Huang et al., "
            "AAAI 2022), APViT (Sun et al., IJCAI 2023), AGQ. Where no post-processor is named, none is given there. "
            "FGNet (Li et al., 2025, arXiv:2511.13063) claims about 12.5% better VOI when fine-tuned; of it "
            "only the abstract was at hand here, not its tables."
        ),
        rows=(
            Standing("Superhuman", 1.095, 0.342, 0.169, "waterz"),
            Standing("Superhuman", 1.145, 0.263, 0.122, "multicut"),
            Standing("PEA", 0.852, 0.232, 0.094),
            Standing("APViT", 0.767, 0.209, 0.078),
            Standing("AGQ", 0.681, 0.267, 0.089),
        ),
    ),
    "fib25": Standings(
        data="FIB-25 (fly medulla, 10 x 10 x 10 nm), the 250-voxel cube that NeuroProof calls training sample 2",
        part="z 150-249",
        source=(
            "Labels and supervoxels: Janelia FlyEM, NeuroProof examples. Flood-filling network: the labels that Google "
            "published with its code for this cube. All scored by this ruler. The U-Net is a plain residual one of 12 "
            "to 96 channels, trained for 35 minutes on two cores on z 0-124."
        ),
        rows=(
            Standing("supervoxels as delivered", 1.998, 0.327, 0.236),
            Standing("smoothed intensity, waterz", 1.615, 0.671, 0.185, "best of 6 thresholds"),
            Standing("flood-filling network", 0.904, 0.937, 0.106, "its unsegmented voxels as one object"),
            Standing("plain 3D U-Net, waterz median", 0.870, 0.740, 0.076, "seeds below 0.3, best of 8 thresholds"),
            Standing("plain 3D U-Net, waterz median", 1.038, 0.839, 0.187, "seeds below 0.5, best of 8 thresholds"),
        ),
    ),
}


def find_standings(name: str) -> Standings | None:
    """Returns the table of a name; None for an empty one."""
    if name and name not in STANDINGS:
        raise UserError(f"The tables of known results are {', '.join(STANDINGS)}, but {name!r} was asked for.")
    return STANDINGS.get(name)
