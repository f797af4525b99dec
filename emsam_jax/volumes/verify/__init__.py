"""Is a volume fit to train on? `python -m emsam_jax.volumes.verify`, and the findings that every command shows."""

from emsam_jax.volumes.verify.findings import check_present, quick_findings

__all__ = ["check_present", "quick_findings"]
