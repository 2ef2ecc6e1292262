"""Independent random streams of one subject, so that a part can be redrawn and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERSON, ANATOMY, ACQUISITION, FMRI_PRIVATE, DMRI_PRIVATE, FMRI_STATE, FMRI_NOISE, DMRI_NOISE = range(8)
COHORT = 1_000_000_007  # in place of a subject: draws about the cohort as a whole


@dataclass(frozen=True)
class Streams:
    """Generators of one subject of a seeded cohort."""

    seed: int
    subject: int

    def generator(self, stream: int, draw: int = 0) -> np.random.Generator:
        """The stream's generator; draw 0 makes the scan, others are redraws.

        >>> a, b = Streams(1, 2).generator(PERSON), Streams(1, 2).generator(PERSON)
        >>> bool(a.random() == b.random())
        True
        """
        return np.random.default_rng([self.seed, self.subject, stream, draw])
