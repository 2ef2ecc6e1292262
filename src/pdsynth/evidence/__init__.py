"""Evidence beyond image quality: files of a results folder, made from its patterns or with the model at hand."""

from pdsynth.evidence.diagnosis import write_diagnosis
from pdsynth.evidence.group_effects import by_model, cross_fitted, one_row_each, write_group_effects
from pdsynth.evidence.probes import write_probes
from pdsynth.evidence.roi import write_roi
from pdsynth.evidence.sites import leave_one_site_out, sites_to_leave_out, write_sites

__all__ = [
    "by_model",
    "cross_fitted",
    "leave_one_site_out",
    "one_row_each",
    "sites_to_leave_out",
    "write_diagnosis",
    "write_group_effects",
    "write_probes",
    "write_roi",
    "write_sites",
]
