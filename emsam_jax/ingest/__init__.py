"""Volumes of any format converted into OME-Zarr or precomputed, shard by shard and with a ledger. No jax."""

from emsam_jax.ingest.conversion import ingest

__all__ = ["ingest"]
