"""File of the claim on sites: sites.tsv."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction


@dataclass(frozen=True)
class SiteScores:
    """A site in a direction: PSNR in the brain, dB, of a model that saw the site and of one that did not.

    difference: unseen less seen; p: paired permutation test, p_holm corrected over the rows.
    """

    site: str
    direction: Direction
    n_participants: int
    psnr_seen: float
    psnr_unseen: float
    difference: Estimate
    p: float
    p_holm: float


SITES = TableFile("sites.tsv", SiteScores, "pdsynth evidence --leave-site-out")
