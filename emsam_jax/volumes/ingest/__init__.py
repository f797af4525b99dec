"""Conversion of volumes of any format, shard by shard and with a ledger.

The command is `emsam ingest`.
"""

from emsam_jax.volumes.ingest.conversion import ingest

__all__ = ["ingest"]
