"""Is a volume fit to train on? Findings that every command shows, and a report.

The command is `python -m emsam_jax.volumes.verify`.
"""

from emsam_jax.volumes.verify.findings import check_present, quick_findings

__all__ = ["check_present", "quick_findings"]
