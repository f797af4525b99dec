"""A stage's blocks on the workers of a Dask cluster: processes of this machine, jobs, or anyone's scheduler."""

from emsam_jax.blocks.dask.cluster import Workers, open_cluster
from emsam_jax.blocks.dask.dispatch import count_threads
from emsam_jax.blocks.dask.engine import run_stage
from emsam_jax.blocks.dask.security import Tls

__all__ = ["Tls", "Workers", "count_threads", "open_cluster", "run_stage"]
