"""Independent random streams of one subject, so that one part can be redrawn while all others stay the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERSON, ANATOMY, ACQUISITION, FMRI_PRIVATE, DMRI_PRIVATE, FMRI_STATE, FMRI_NOISE, DMRI_NOISE = range(8)
COHORT = 1_000_000_007  # stands for the subject in draws that concern the whole cohort


@dataclass(frozen=True)
class Streams:
    """Independent random generators of one subject: number `subject` in the cohort with the seed `seed`."""

    seed: int
    subject: int

    def generator(self, stream: int, draw: int = 0) -> np.random.Generator:
        """A new generator of a stream of random numbers (PERSON, ANATOMY, ...), at its beginning.

        draw: 0 for the scan; 1, 2, ... for independent draws of the same fields, whose mean gives the expected scan
        (oracle).

        >>> a, b = Streams(1, 2).generator(PERSON), Streams(1, 2).generator(PERSON)
        >>> bool(a.random() == b.random())
        True
        """
        return np.random.default_rng([self.seed, self.subject, stream, draw])
