"""The signals against dipy, closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from dipy.sims.voxel import multi_tensor
from scipy import ndimage, stats

from pdsynth.cohorts.simulated import bold, diffusion, fields, scanner, tissue
from pdsynth.cohorts.simulated.anatomy import Person, draw_anatomy
from pdsynth.cohorts.simulated.priors import NETWORKS
from pdsynth.cohorts.simulated.sites import SITES
from pdsynth.imaging.spatial import FWHM, mni_grid
from pdsynth.types import Diagnosis

B = 2500.0


def shell(n: int, bval: float):
    bvals = np.concatenate([[0.0], np.full(n, bval)])
    bvecs = np.concatenate([np.zeros((1, 3)), diffusion.directions(n)])
    return bvals, bvecs, gradient_table(bvals, bvecs=bvecs, b0_threshold=0)


def angles(vector: np.ndarray) -> tuple[float, float]:
    return float(np.rad2deg(np.arccos(vector[2]))), float(np.rad2deg(np.arctan2(vector[1], vector[0])))


@pytest.mark.parametrize(("bval", "f", "share"), [(1000.0, 0.62, 0.67), (2500.0, 0.35, 0.5), (700.0, 0.9, 1.0)])
def test_crossing_white_matter_equals_dipys_multi_tensor(bval: float, f: float, share: float) -> None:
    bvals, bvecs, table = shell(24, bval)
    fibres = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    across = tissue.PARALLEL * (1 - f)
    stick, tensor = (tissue.PARALLEL, 0.0, 0.0), (tissue.PARALLEL, across, across)
    weights = [100 * share * f, 100 * share * (1 - f), 100 * (1 - share) * f, 100 * (1 - share) * (1 - f)]
    directions = [angles(fibres[i]) for i in (0, 0, 1, 1)]
    wanted, _ = multi_tensor(
        table, np.array([stick, tensor, stick, tensor]), S0=1.0, angles=directions, fractions=weights, snr=None
    )
    squared = np.square(bvecs @ fibres.T)
    ours = share * tissue.white_matter_decay(bvals, f, squared[:, 0])
    ours += (1 - share) * tissue.white_matter_decay(bvals, f, squared[:, 1])
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_grey_matter_is_two_isotropic_tensors_with_the_given_mean() -> None:
    slow, fast = tissue.slow_and_fast(0.8e-3)
    assert tissue.STATIC_FRACTION * slow + (1 - tissue.STATIC_FRACTION) * fast == pytest.approx(0.8e-3)
    _, _, table = shell(6, B)
    percent = [100 * tissue.STATIC_FRACTION, 100 * (1 - tissue.STATIC_FRACTION)]
    wanted, _ = multi_tensor(
        table, np.array([[slow] * 3, [fast] * 3]), S0=1.0, angles=[(0, 0), (0, 0)], fractions=percent, snr=None
    )
    assert tissue.grey_matter_decay(B, 0.8e-3) == pytest.approx(wanted[1], abs=1e-6)


def test_powder_average_is_the_mean_over_a_dense_sphere() -> None:
    cosine = (np.arange(20_000) + 0.5) / 20_000
    for f in (0.2, 0.62, 0.9):
        dense = tissue.white_matter_decay(B, f, cosine**2).mean()
        assert tissue.white_matter_powder(B, np.float64(f)) == pytest.approx(dense, abs=1e-6)


def test_six_directions_are_isotropic_to_fourth_order() -> None:
    directions = diffusion.directions(6)
    np.testing.assert_allclose(directions.T @ directions / 6, np.eye(3) / 3, atol=1e-12)
    probe = np.random.default_rng(0).normal(size=(5, 3))
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    np.testing.assert_allclose(((probe @ directions.T) ** 4).mean(1), 1 / 5, atol=1e-12)


def test_tensor_fit_at_low_b_returns_the_simulated_diffusivities() -> None:
    bvals, bvecs, table = shell(30, 20.0)
    f = 0.62
    signal = tissue.white_matter_decay(bvals, f, np.square(bvecs[:, 0]))
    fit = TensorModel(table).fit(1000 * signal)
    along, across = tissue.PARALLEL, tissue.PARALLEL * (1 - f) ** 2  # first order: (1 - f) * dperp
    mean = (along + 2 * across) / 3
    anisotropy = (along - across) / np.sqrt(along**2 + 2 * across**2)
    assert fit.md == pytest.approx(mean, rel=0.01)
    assert fit.fa == pytest.approx(anisotropy, abs=0.01)


def test_white_matter_of_a_healthy_brain_has_the_expected_fa_and_md() -> None:
    person = Person(Diagnosis.NC, 74.0, "F", 0.1, 0.3, 0.2)
    anatomy = draw_anatomy(np.random.default_rng(4), person, 4.0)
    flat = np.ones(anatomy.grid.shape, np.float32)
    micro = diffusion.Microstructure(
        flat, diffusion.expected_fraction(anatomy, person), np.float32(diffusion.expected_diffusivity(person)) * flat
    )
    parts = diffusion.b0_parts(anatomy, SITES["adni"].dmri, tissue.TISSUES, scalp=1.0)
    bvals, bvecs, table = shell(24, 1000.0)
    images = diffusion.weighted_images(anatomy, micro, parts, bvals, bvecs, np.eye(3), tissue.TISSUES)
    fit = TensorModel(table).fit(images[:, anatomy.wm > 0.7].T.astype(np.float64))
    assert np.median(fit.fa) == pytest.approx(0.50, abs=0.06)
    assert 0.68e-3 < np.median(fit.md) < 0.75e-3
    # The first eigenvector is the stronger fibre direction.
    single = anatomy.share[anatomy.wm > 0.7] > 0.66
    cosine = np.abs(
        np.einsum("nj,jn->n", fit.directions[single, 0], anatomy.directions[0][:, anatomy.wm > 0.7][:, single])
    )
    assert np.median(cosine) > 0.97


def test_gradient_echo_peaks_at_the_ernst_angle() -> None:
    gm = tissue.TISSUES["gm"]
    ernst = np.rad2deg(np.arccos(np.exp(-1000 / gm.t1)))
    best, less, more = (tissue.gradient_echo(gm, 1000, 30, ernst + d) for d in (0, -3, 3))
    assert best > less
    assert best > more
    assert tissue.spin_echo(gm, 1e9, gm.t2) == pytest.approx(gm.density * np.exp(-1))


def test_random_fields_have_unit_variance_and_the_given_smoothness() -> None:
    grid = mni_grid(4)
    sample = fields.random_field(np.random.default_rng(0), grid, 16.0, 200)
    assert sample.std() == pytest.approx(1, abs=0.03)
    assert sample[:, 0, 0, 0].std() == pytest.approx(1, abs=0.15)  # up to the edges
    neighbour = (sample[:, 1:] * sample[:, :-1]).mean()
    sigma = 16 / FWHM
    assert neighbour == pytest.approx(np.exp(-(4.0**2) / (4 * sigma**2)), abs=0.02)


def test_smoothing_equals_scipys_in_the_interior() -> None:
    grid = mni_grid(4)
    data = np.random.default_rng(1).random(grid.shape, np.float32)
    ours = fields.smooth(data, grid, (8.0, 6.0, 10.0))
    theirs = ndimage.gaussian_filter(data, np.array([8.0, 6.0, 10.0]) / FWHM / 4, mode="constant", truncate=6)
    np.testing.assert_allclose(ours[6:-6, 6:-6, 6:-6], theirs[6:-6, 6:-6, 6:-6], atol=2e-4)


def test_upsampling_keeps_a_linear_ramp() -> None:
    grid = mni_grid(4)
    nodes = fields.coarse_nodes(grid, 11.0)
    ramp = fields.world(nodes) * np.array([1, -2, 3], np.float32)[:, None, None, None]
    wanted = fields.world(grid) * np.array([1, -2, 3], np.float32)[:, None, None, None]
    np.testing.assert_allclose(fields.upsample(ramp, grid), wanted, atol=1e-3)


def test_interpolation_matrix_is_map_coordinates() -> None:
    generator = np.random.default_rng(2)
    data = generator.random((7, 8, 9), np.float32)
    place = generator.uniform(0, 5.9, (3, 100)).astype(np.float32)
    ours = scanner._interpolation(place, data.shape, np.full(100, 2.0, np.float32)) @ data.ravel()
    np.testing.assert_allclose(ours, 2 * ndimage.map_coordinates(data, place, order=1), rtol=1e-4)


def test_noise_is_rician() -> None:
    generator = np.random.default_rng(3)
    for signal in (0.0, 1.0, 20.0):
        sample = scanner.rician(generator, np.full(40_000, signal, np.float32), 2.0)
        assert sample.mean() == pytest.approx(stats.rice(signal / 2, scale=2).mean(), rel=0.01)
    assert scanner.rician_mean(np.float32(20), 2.0) == pytest.approx(stats.rice(10, scale=2).mean(), rel=1e-3)


def test_motion_moves_the_volume_by_the_given_distance() -> None:
    volume = ndimage.gaussian_filter(np.eye(1, 41**3, 41**3 // 2).reshape(41, 41, 41).astype(np.float32), 3)
    shifted = bold.apply_motion(volume, np.array([0, 0, 0, 3.0, 0, -6.0]), np.array([3.0, 3.0, 3.0]))
    centre = np.array(ndimage.center_of_mass(shifted)) - np.array(ndimage.center_of_mass(volume))
    np.testing.assert_allclose(centre, [-1, 0, 2], atol=1e-3)
    np.testing.assert_allclose(bold.apply_motion(volume, np.zeros(6), np.ones(3)), volume, atol=1e-7)


def test_slow_noise_has_unit_variance_and_the_lorentzian_spectrum() -> None:
    noise = bold.slow_noise(np.random.default_rng(0), 400, 256, 2.0)
    assert noise.var() == pytest.approx(1, abs=0.03)
    frequency = np.fft.rfftfreq(256, 2.0)
    power = np.square(np.abs(np.fft.rfft(noise))).mean(0)
    assert power[frequency < bold.HIGH_PASS_HZ].max() < 1e-12
    corner, low = np.argmin(abs(frequency - bold.CORNER_HZ)), np.argmin(abs(frequency - 0.012))
    ratio = power[corner - 2 : corner + 3].mean() / power[low - 1 : low + 2].mean()
    assert ratio == pytest.approx(0.5 * (1 + 0.2**2), abs=0.08)


def test_connectivity_within_the_default_mode_follows_severity() -> None:
    network = np.repeat(np.arange(len(NETWORKS)), 12)
    default = network == NETWORKS.index("DefaultMode")

    def within(severity: float) -> float:
        courses = bold.region_courses(np.random.default_rng(5), network, 4000, 2.0, severity)[1:]
        inside = np.corrcoef(courses[default])
        return float(inside[np.triu_indices(default.sum(), 1)].mean())

    healthy, ill = within(0.0), within(1.0)
    assert healthy == pytest.approx(bold.WITHIN, abs=0.08)
    assert ill - healthy == pytest.approx(0.25, abs=0.08)


def test_default_mode_opposes_dorsal_attention() -> None:
    network = np.repeat(np.arange(len(NETWORKS)), 20)
    courses = bold.region_courses(np.random.default_rng(6), network, 4000, 2.0, 0.0)[1:]
    means = np.stack([courses[network == k].mean(0) for k in range(len(NETWORKS))])
    between = np.corrcoef(means)
    default, attention = NETWORKS.index("DefaultMode"), NETWORKS.index("DorsalAttention")
    assert between[default, attention] < -0.1
    rest = [between[i, j] for i in range(6) for j in range(i) if {i, j} != {default, attention}]
    assert np.mean(rest) == pytest.approx(bold.BETWEEN, abs=0.05)


@pytest.mark.parametrize("elements", [1, 48])
def test_the_coil_falls_off_with_the_distance_from_its_elements(elements: int) -> None:
    grid, strength, reach = mni_grid(4), 1.5, 20.0
    coil = scanner.Coil(strength, reach, (5.0, 0.0, 0.0), elements, size=0.9, lowest=0.0)
    optics = scanner.Optics(coil, (0, 0, 0), 0.0, tilt=0.0)
    field = scanner.coil_field(np.random.default_rng(0), grid, optics, jitter=0.0)
    height = np.linspace(0.0, 0.95, elements)
    angle, ring = np.pi * (3 - np.sqrt(5)) * np.arange(elements), np.sqrt(1 - height**2)
    places = 0.9 * np.stack([ring * np.cos(angle) * 105, ring * np.sin(angle) * 125, height * 115], 1)
    places += scanner.HEAD_CENTRE_MM
    places[:, 0] += 5
    inside = np.array([[0, -18, 8], [40, -18, 8], [-40, -18, 8], [0, 40, 20], [0, -60, 40], [0, -18, 60]], float)
    squared = np.square(inside[:, None] - places).sum(-1)
    expected = strength * 0.5 * np.log(np.sum(1 / np.square(squared + reach**2), 1))
    voxels = np.rint((inside - grid.affine[:3, 3]) / grid.spacing_mm).astype(int)
    found = np.log(field[tuple(voxels.T)])
    assert np.ptp(expected) > 0.4
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.15)  # a weak field is added
