"""File of the claim on sites: sites.tsv."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction


@dataclass(frozen=True)
class SiteScores:
    """Row of sites.tsv: PSNR in the brain (dB) at one site, of two models, one of them trained without the site.

    site: name of the site. direction: of synthesis. psnr_seen: of the model trained on participants of all sites;
    psnr_unseen: of the model trained on as many participants, none from this site. n_participants: number of test
    participants of the site, over whom PSNR is averaged. difference: unseen minus seen, dB, with a 95 % interval; below
    0 is a loss. p: paired permutation test of no difference; p_holm: corrected over all sites and directions (Holm).
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
