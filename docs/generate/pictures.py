"""Pictures of the pages, drawn from the files of a run or by the simulator itself."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt

Panel = tuple[str, np.ndarray, str, float]  # title, plane, colour map, upper end of its scale


SIMULATOR = ("anatomy", "fields", "contrast", "scans", "oracles")  # the pictures of the simulator, in their order


def panels(rows: Sequence[Sequence[Panel]]) -> bytes:
    """A PNG of planes in rows, each below its title; intensities run from 0 to the upper end of the scale."""
    width = max(1, *map(len, rows))
    size = (2.3 * width, 2.9 * len(rows))
    figure, axes = plt.subplots(len(rows), width, figsize=size, squeeze=False, layout="constrained")
    for row, shown in zip(axes, rows, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, (title, plane, colours, top) in zip(row, shown, strict=False):
            axis.imshow(np.rot90(plane), cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            axis.set_title(title, fontsize=9)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=90, metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def middle(volume: np.ndarray, share: float = 0.55) -> np.ndarray:
    """The axial plane at a share of the height."""
    return volume[:, :, int(share * volume.shape[2])]


def _image(path: Path) -> np.ndarray:
    data = np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj, dtype=np.float32)
    return data.mean(-1) if data.ndim == 4 else data


def _grey(title: str, volume: np.ndarray) -> Panel:
    return title, middle(volume), "gray", float(np.percentile(volume, 99.5))


def missing_scan(run: Path) -> bytes:
    """Source, synthesised scan and its SD of the first person whose dMRI was synthesised in the tutorial."""
    made = sorted(run.glob("synthesised/sub-*/dwi/*_desc-synthetic_dwiref.nii.gz"))[0]
    person = made.parts[-3]
    source = sorted((run / "study" / person).glob("func/*_bold.nii.gz"))[0]
    deviation = _image(made.with_name(made.name.replace("desc-synthetic_", "desc-syntheticstd_")))
    estimate = _image(made)
    top = float(np.percentile(estimate, 99.5))
    shown = [_grey("fMRI, mean: the source", _image(source)), ("dMRI, synthesised", middle(estimate), "gray", top)]
    return panels([[*shown, ("its SD", middle(deviation), "magma", float(np.percentile(deviation, 99.5)))]])


def scored_scans(run: Path) -> bytes:
    """Source, synthesised scan, real scan and difference of one participant of the test split, in both directions."""

    def volume(name: str) -> np.ndarray:
        path = next((run / "results" / "predictions").glob(f"{name}.npy"))
        return np.load(path, mmap_mode="r")[0].astype(np.float32)

    rows = []
    for source, target, names in (("fmri", "dmri", ("fMRI", "dMRI")), ("dmri", "fmri", ("dMRI", "fMRI"))):
        real, made = volume(target), volume(f"default*_{source}_to_{target}")
        row: list[Panel] = [(f"{names[0]}: the source", middle(volume(source)), "gray", 0.9)]
        row += [
            (f"{names[1]}, synthesised", middle(made), "gray", 0.9),
            (f"{names[1]}, real", middle(real), "gray", 0.9),
        ]
        rows.append([*row, ("absolute difference", middle(np.abs(made - real)), "magma", 0.3)])
    return panels(rows)


def simulator() -> dict[str, bytes]:
    """The pictures of the steps of the simulator, in the order of SIMULATOR, by their place in the site."""
    from pdsynth.cohorts.simulated import acquisition, bold, diffusion
    from pdsynth.cohorts.simulated.anatomy import draw_anatomy, draw_person
    from pdsynth.cohorts.simulated.scanner import coil_field, dropout
    from pdsynth.cohorts.simulated.session import means, simulate_session
    from pdsynth.cohorts.simulated.sites import SITES
    from pdsynth.cohorts.simulated.streams import (
        ACQUISITION,
        ANATOMY,
        DMRI_PRIVATE,
        FMRI_PRIVATE,
        PERSON,
        Streams,
    )  # fmt: skip
    from pdsynth.types import Diagnosis

    streams, grid_mm = Streams(0, 0), 4.0
    people = {d: draw_person(streams.generator(PERSON), d) for d in (Diagnosis.NC, Diagnosis.AD)}
    bodies = {d: draw_anatomy(streams.generator(ANATOMY), person, grid_mm) for d, person in people.items()}
    anatomy, person = bodies[Diagnosis.NC], people[Diagnosis.NC]
    taken = acquisition.at_site(streams.generator(ACQUISITION), SITES["oasis"])
    session = simulate_session(0, 0, Diagnosis.NC, "oasis", grid_mm, False, False, 8)

    tissue = [("grey matter", anatomy.gm), ("white matter", anatomy.wm)]
    tissue += [(f"fluid, {diagnosis}", body.csf) for diagnosis, body in bodies.items()]
    micro = diffusion.microstructure(anatomy, person, streams.generator(DMRI_PRIVATE), taken.dmri.optics)
    steady = dropout(anatomy, taken.fmri_protocol.t_e, taken.fmri.optics.dropout)
    lost = (1 - steady) * (anatomy.brain > 0.5)
    coil = coil_field(streams.generator(FMRI_PRIVATE), anatomy.grid, taken.fmri.optics, jitter=2.0)
    signal = bold.mean_signal(
        anatomy, streams.generator(FMRI_PRIVATE), taken.fmri_protocol, taken.fmri.tissues, taken.fmri.optics, steady
    )
    parts = diffusion.b0_parts(anatomy, taken.dmri_protocol, taken.dmri.tissues, taken.dmri.optics.scalp)
    weighted = diffusion.powder_image(micro, parts, taken.dmri_protocol.bval, taken.dmri.tissues)
    mean_fmri, mean_dmri = means(session)
    oracles = [("fMRI, oracle", session.fmri_oracle), ("dMRI, oracle", session.dmri_oracle)]
    drawn = (
        [(name, middle(m), "gray", 1.0) for name, m in tissue],
        [
            ("receive coil", middle(coil), "gray", 2.0),
            ("signal lost near air", lost[:, :, int(np.argmax(lost.sum((0, 1))))], "gray", 0.6),
            ("intra-axonal fraction", middle(micro.fraction * (anatomy.wm > 0.2)), "viridis", 0.9),
        ],
        [_grey("gradient echo (fMRI)", signal), _grey("b = 1000 (dMRI)", weighted)],
        [
            _grey("one fMRI volume", session.bold[..., 0]),
            _grey("mean of the run", mean_fmri),
            _grey("one direction", session.dwi[..., -1]),
            _grey("mean over directions", mean_dmri),
        ],
        [_grey(name, volume) for name, volume in oracles if volume is not None],
    )
    return {f"images/simulator/{name}.png": panels([row]) for name, row in zip(SIMULATOR, drawn, strict=True)}


TUTORIAL = {
    "images/tutorial/missing-scan.png": missing_scan,
    "images/tutorial/scored-scans.png": scored_scans,
}  # by the function that draws from the folder of the tutorial's run
NAMES = (*TUTORIAL, *(f"images/simulator/{name}.png" for name in SIMULATOR))
