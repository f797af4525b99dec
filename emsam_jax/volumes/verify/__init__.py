"""Is a volume fit to train on? Findings that every command shows, and a report.

The command is `emsam verify`.
"""

from emsam_jax.volumes.verify.alignment import border_contrasts
from emsam_jax.volumes.verify.findings import check_present, quick_findings

__all__ = ["border_contrasts", "check_present", "quick_findings"]
