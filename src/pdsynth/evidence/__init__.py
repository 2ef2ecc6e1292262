"""Evidence beyond image quality: files of a results folder, made from its patterns or with the model at hand."""

from pdsynth.evidence.diagnosis import write_diagnosis
from pdsynth.evidence.probes import write_probes
from pdsynth.evidence.roi import write_roi
from pdsynth.evidence.sites import leave_one_site_out, sites_to_leave_out, write_sites

__all__ = [
    "leave_one_site_out",
    "sites_to_leave_out",
    "write_diagnosis",
    "write_probes",
    "write_roi",
    "write_sites",
]
