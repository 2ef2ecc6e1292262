"""The sentence on the slope of effects claims what its numbers carry."""

from dataclasses import replace

import pytest

from pdsynth.evidence.effects.files import Effect
from pdsynth.evidence.effects.section import effect_sentence
from pdsynth.statistics.resampling import UNKNOWN, Estimate
from pdsynth.types import Direction
from rows import filled


@pytest.mark.parametrize(
    ("slope", "low", "high", "reliability", "said"),
    [
        (0.4, 0.2, 0.6, 0.9, "the effect is attenuated: a predictor that knew the true group difference"),
        (0.9, 0.7, 1.1, 0.9, "no attenuation is shown"),
        (1.4, 1.1, 1.8, 0.9, "the effect is overstated"),
        (0.4, -0.2, 1.1, 0.9, "too few participants to show whether the effect is kept or lost"),
        (0.9, 0.8, 0.96, 0.1, "reflects individuals as much as the disease"),
    ],
)
def test_the_sentence_claims_what_the_numbers_carry(slope, low, high, reliability, said):
    row = filled(Effect, method="pds", direction=Direction.FMRI_TO_DMRI, slope=Estimate(slope, low, high))
    sentence = effect_sentence(replace(row, reliability=reliability), Estimate(0.13, 0.09, 0.17))
    assert said in sentence and f"the slope of pds is {slope:.2f} (" in sentence
    assert sentence.endswith("the slope of the synthesised on the real change is 0.13 (0.09 to 0.17).")


def test_an_effect_that_is_not_known_is_said_so():
    row = filled(Effect, method="pds", direction=Direction.DMRI_TO_FMRI, slope=UNKNOWN)
    assert effect_sentence(row, None) == "dMRI → fMRI: no effect could be estimated."
