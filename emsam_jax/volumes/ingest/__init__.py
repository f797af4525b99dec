"""Conversion of volumes of any format, shard by shard and with a ledger.

The command is `emsam ingest`.
"""
