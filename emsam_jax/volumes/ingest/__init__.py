"""Converts volumes of any format, shard by shard and with a ledger: `python -m emsam_jax.volumes.ingest`."""
