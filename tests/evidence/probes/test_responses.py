"""Probes of toy models whose answer is known: the identity, a constant, pure noise, and scaled changes."""

import numpy as np
import pytest
from scipy import stats

from pdsynth.atlas import Atlas
from pdsynth.evidence.probes.responses import counterfactual_response, insert_lesion, lesion_response

SHAPE, MM = (24, 24, 24), np.full(3, 4.0)
BRAIN = np.linalg.norm((np.indices(SHAPE).T - 11.5) * MM, axis=-1).T < 44
SOURCE = np.where(BRAIN, 0.5, 0).astype(np.float32)
RADIUS = 8.0
IN_SPHERE = 33  # voxels of 4 mm within 8 mm of one of them


def identity(volume):
    return volume


def lesion_size(factor):
    """The source's mean change within the radius, by the lesion alone."""
    centre = np.array([12, 12, 12])
    change = insert_lesion(SOURCE, BRAIN, centre, RADIUS, MM, factor) - SOURCE
    inside = np.linalg.norm((np.indices(SHAPE).T - centre) * MM, axis=-1).T <= RADIUS
    assert inside.sum() == IN_SPHERE
    return float(change[inside].mean())


def test_a_lesion_is_a_smooth_sphere_of_the_right_size_and_stays_in_the_brain():
    fine = np.full((41, 41, 21), 0.5, np.float32)
    brain = np.ones(fine.shape, bool)
    brain[:16] = False
    spacing = np.array([1.0, 1.0, 2.0])
    hurt = insert_lesion(fine, brain, np.array([20, 20, 10]), 10.0, spacing, 1.4)
    distance = np.linalg.norm((np.indices(fine.shape).T - [20, 20, 10]) * spacing, axis=-1).T
    assert hurt[20, 20, 10] == pytest.approx(0.7)
    assert np.allclose(hurt[brain & (distance <= 9)], 0.7)
    assert np.array_equal(hurt[~brain | (distance >= 11)], fine[~brain | (distance >= 11)])
    whole = insert_lesion(fine, np.ones_like(brain), np.array([20, 20, 10]), 10.0, spacing, 1.4)
    added = (whole - fine).sum() * spacing.prod() / 0.2
    assert added == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)


def test_a_lesion_never_leaves_the_range_of_a_volume():
    assert insert_lesion(SOURCE, BRAIN, np.array([12, 12, 12]), RADIUS, MM, 4.0).max() == 1
    assert insert_lesion(SOURCE, BRAIN, np.array([12, 12, 12]), RADIUS, MM, -1.0).min() == 0


def test_the_identity_shows_every_lesion_at_the_contrast_put_in():
    found = lesion_response(identity, SOURCE, BRAIN, MM, radius_mm=RADIUS, factor=1.4, noise_sd=0.02, lesions=20)
    assert found.sensitivity == 1
    assert found.false_positives == 0
    assert found.contrast_to_noise.mean() == pytest.approx(lesion_size(1.4) / 0.02, rel=0.03)


@pytest.mark.parametrize("z", [1.0, 1.645])
def test_noise_passes_for_a_lesion_as_often_as_its_distribution_says(z):
    noise = lesion_size(1.4) / 2 * np.sqrt(IN_SPHERE) / z  # half a lesion is z SD of the noise of a sphere's mean
    found = lesion_response(identity, SOURCE, BRAIN, MM, radius_mm=RADIUS, factor=1.4, noise_sd=noise, lesions=150)
    assert found.false_positives == pytest.approx(2 * stats.norm.sf(z), abs=0.03)
    detectable = stats.norm.sf(1.96 - 2 * z) + stats.norm.sf(1.96 + 2 * z)  # |N(2 z, 1)| beyond 95 % of |N(0, 1)|
    assert found.sensitivity == pytest.approx(detectable, abs=3 * np.sqrt(detectable * (1 - detectable) / 150))


def test_a_constant_shows_nothing():
    found = lesion_response(np.zeros_like, SOURCE, BRAIN, MM, radius_mm=RADIUS, lesions=5)
    assert (found.sensitivity, found.false_positives) == (0, 0)
    assert found.contrast_to_noise.tolist() == [0] * 5


def test_an_output_of_its_own_noise_detects_one_in_twenty_and_cries_wolf():
    generator = np.random.default_rng(3)
    found = lesion_response(lambda v: generator.normal(0, 1, v.shape), SOURCE, BRAIN, MM, radius_mm=RADIUS, lesions=200)
    assert stats.binomtest(int(found.detected.sum()), 200, 0.05).pvalue > 0.05
    half_median = stats.norm.ppf(0.75) / 2
    assert found.false_positives == pytest.approx(2 * stats.norm.sf(half_median), abs=0.06)


def test_a_lesion_shown_in_the_wrong_place_is_not_detected():
    found = lesion_response(lambda v: v[::-1, ::-1, ::-1], SOURCE, BRAIN, MM, radius_mm=RADIUS, lesions=100, seed=1)
    assert found.sensitivity <= 0.05
    assert lesion_response(identity, SOURCE, BRAIN, MM, radius_mm=RADIUS, lesions=100, seed=1).sensitivity == 1


def test_an_output_that_follows_lesions_but_no_noise_has_infinite_contrast():
    found = lesion_response(
        lambda v: (v > 0.65).astype(float), SOURCE, BRAIN, MM, radius_mm=RADIUS, lesions=3, noise_sd=0.01
    )
    assert np.isinf(found.contrast_to_noise).all()
    assert found.sensitivity == 1


def test_lesions_are_the_same_for_a_seed_and_calls_are_as_many_as_said():
    seen = []

    def watched(volume):
        seen.append(volume.copy())
        return volume

    first = lesion_response(watched, SOURCE, BRAIN, MM, lesions=4, seed=2)
    assert len(seen) == 9
    assert all(volume.dtype == np.float32 for volume in seen)
    assert all(np.array_equal(volume[~BRAIN], SOURCE[~BRAIN]) for volume in seen)
    assert np.array_equal(first.contrast_to_noise, lesion_response(identity, SOURCE, BRAIN, MM, lesions=4, seed=2)
                          .contrast_to_noise)  # fmt: skip
    other = lesion_response(identity, SOURCE, BRAIN, MM, lesions=4, seed=3)
    assert not np.array_equal(first.contrast_to_noise, other.contrast_to_noise)


def test_what_cannot_be_probed_is_said():
    with pytest.raises(ValueError, match=r"no sphere of 60\.0 mm"):
        lesion_response(identity, SOURCE, BRAIN, MM, radius_mm=60.0)
    with pytest.raises(ValueError, match=r"no room beside a lesion of 36\.0 mm"):
        lesion_response(identity, SOURCE, BRAIN, MM, radius_mm=36.0)
    with pytest.raises(ValueError, match="noise above 0"):
        lesion_response(identity, SOURCE, BRAIN, MM, noise_sd=0)


ATLAS = Atlas(np.arange(1, 28, dtype=np.int16).reshape(3, 3, 3).repeat(2, axis=0), ["r"] * 27, [""] * 27)


@pytest.fixture(scope="module")
def people():
    """Ten people's volumes at both severities: an effect a region, and a share of their own."""
    generator = np.random.default_rng(0)
    low = generator.random((10, 6, 3, 3))
    effect = generator.normal(0, 0.1, (6, 3, 3))
    return low, low + effect + generator.normal(0, 0.05, low.shape)


@pytest.mark.parametrize("share", [1.0, 0.4, -0.5])
def test_a_share_of_the_change_is_the_slope(people, share):
    low, high = people
    found = counterfactual_response(low, low + share * (high - low), low, high, ATLAS)
    assert (found.slope.value, found.slope.low, found.slope.high) == pytest.approx((share,) * 3)
    np.testing.assert_allclose(found.synthesised, share * found.real)
    assert found.sign_agreement.value == (share > 0)


def test_an_output_that_does_not_change_has_slope_0(people):
    low, high = people
    constant = np.full(low.shape, 0.5)
    found = counterfactual_response(constant, constant, low, high, ATLAS)
    assert (found.slope.value, found.slope.low, found.slope.high) == (0, 0, 0)
    assert found.sign_agreement.value == 0
    assert not found.synthesised.any()


def test_slope_and_clear_regions_are_those_of_reference_implementations(people):
    low, high = people
    generator = np.random.default_rng(1)
    made = low + 0.6 * (high - low) + generator.normal(0, 0.1, low.shape)
    found = counterfactual_response(low, made, low, high, ATLAS, seed=4)
    real = (high - low).reshape(10, 3, 2, 9).mean(2).reshape(10, 27)  # the atlas pairs two voxels along x
    synthesised = (made - low).reshape(10, 3, 2, 9).mean(2).reshape(10, 27)
    slope = np.linalg.lstsq(real.mean(0)[:, None], synthesised.mean(0), rcond=None)[0][0]
    assert found.slope.value == pytest.approx(slope)
    assert found.slope.low < 0.6 < found.slope.high
    clear = stats.ttest_1samp(real, 0).pvalue < 0.05
    assert np.array_equal(found.clear, clear) and 5 < clear.sum() < 27
    assert found.sign_agreement.value == np.mean(real.mean(0)[clear] * synthesised.mean(0)[clear] > 0)
    assert found.slope == counterfactual_response(low, made, low, high, ATLAS, seed=4).slope


def test_no_clear_change_gives_no_sign_agreement():
    low = np.zeros((4, 6, 3, 3))
    found = counterfactual_response(low, low, low, low, ATLAS)
    assert np.isnan(found.sign_agreement.value) and np.isnan(found.slope.value) and not found.clear.any()


def test_people_must_be_several_and_the_same(people):
    low, high = people
    with pytest.raises(ValueError, match="at least 2"):
        counterfactual_response(low[:1], high[:1], low[:1], high[:1], ATLAS)
    with pytest.raises(ValueError, match="same participants"):
        counterfactual_response(low[:4], high[:4], low, high, ATLAS)
