"""EM-like volumes with exact labels, from a seed.

The command is `python -m emsam_jax.volumes.synthetic`.
"""

from emsam_jax.volumes.synthetic.tissue import Stain, synthetic_volume
from emsam_jax.volumes.synthetic.writing import check_place, write_synthetic

__all__ = ["Stain", "check_place", "synthetic_volume", "write_synthetic"]
