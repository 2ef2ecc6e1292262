"""A synthesis for the page: volumes, sidecars, the zip file of them, and the page with the viewer. Imports torch."""

from __future__ import annotations

import logging
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth import __version__
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.inheritance import sidecar
from pdsynth.cohorts.names import lone_participant
from pdsynth.cohorts.scans import single_scan
from pdsynth.files import write_text
from pdsynth.imaging.nifti import NAMES, Volume
from pdsynth.missing import write_description
from pdsynth.outcomes import least_round_trip
from pdsynth.report import viewer, words
from pdsynth.report.filled import SHOWN_SIGNAL, Filled, canonical, limits, verdict
from pdsynth.report.pictures import View, colour_bar
from pdsynth.report.rendering import fill
from pdsynth.synthesis import Model, Synthesis
from pdsynth.types import Modality

log = logging.getLogger(__name__)
OUT = "synthesised"  # in the folder of a job


@lru_cache(maxsize=1)
def loaded(model: str, device: str) -> Model:
    """The model, loaded once per process. Raises the errors of `Model.load`."""
    return Model.load(model, device)


def make(model: str, device: str, page: Path, to: Modality, path: Path) -> None:
    """Synthesise from one scan into the folder of a job: volume and SD with sidecars, their zip file, the page.

    page: file of the page, in this folder. path: the scan. to: the modality to synthesise. Raises the errors of
    `Model.synthesize`.
    """
    folder = page.parent
    scan = single_scan(path, to.other)
    synthesis = loaded(model, device).synthesize(scan, to)
    log.info("Writing the files")
    out = folder / OUT
    files = synthesis.save(out, *lone_participant(path))
    write_description(out, is_simulated(scan))
    archive = folder / files[0].name.replace(".nii.gz", ".zip")
    with zipfile.ZipFile(archive, "w") as packed:  # the images are compressed already
        for file in sorted(each for each in out.rglob("*") if each.is_file()):
            packed.write(file, file.relative_to(out))
    context = page_context(synthesis, scan, loaded(model, device), files[0].name)
    context |= {"archive": archive.name, "number": folder.name, "version": __version__, "base": "../"}
    write_text(page, fill("result.html.j2", True, context, "pdsynth.serve"))


def page_context(synthesis: Synthesis, scan: Scan, model: Model, file: str) -> dict[str, Any]:
    """The values of the page with the viewer, by the names that its template uses. file: name of the volume."""
    direction, source, brain = synthesis.mark.direction, synthesis.source_mean, synthesis.brain
    assert source is not None and brain is not None
    real, affine = _canonical(source)
    inside = _canonical(Volume(brain, source.affine))[0] > 0
    volume = _canonical(synthesis.volume)[0]
    deviation = None if synthesis.uncertainty is None else _canonical(synthesis.uncertainty)[0]
    view = View.around(np.stack([inside, volume > SHOWN_SIGNAL]), affine, None)
    simulated = is_simulated(scan)
    round_trip, least = synthesis.round_trip_db, least_round_trip(synthesis.mark.model_sha256)
    filled_scan = Filled(file, direction, volume, inside, real, deviation, view, round_trip, least)
    tops = limits([filled_scan])
    return {
        "volumes": viewer.of_synthesised([filled_scan], tops, simulated),
        "has_real": False,
        "missing": [],
        "directions": [{"key": direction.value, "name": words.DIRECTIONS[direction]}],
        "limits": tops,
        "unit": words.UNITS[model.preprocessing.intensity].partition(",")[0],  # the receive field is in the volumes
        "states_sd": deviation is not None,
        "spread": "SD of the synthesised volume",
        "colour_bar": colour_bar,
        "simulated": simulated,
        "scan": scan.path.name,
        "source": NAMES[direction.source],
        "target": NAMES[direction.target],
        "notes": synthesis.notes,
        "round_trip": None if round_trip is None else words.number(round_trip, 2),
        "verdict": verdict(round_trip, least, bool(synthesis.notes)),
        "facts": _facts(synthesis, model),
    }


def is_simulated(scan: Scan) -> bool:
    """Whether the sidecar of a scan says that it is of a simulated person."""
    return sidecar(scan).get("Simulated") is True


def _canonical(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    return canonical(nib.Nifti1Image(volume.data, volume.affine))


def _facts(synthesis: Synthesis, model: Model) -> list[tuple[str, str]]:
    """Facts about the volume: label and value."""
    mark, volume = synthesis.mark, synthesis.volume
    edges = " \N{MULTIPLICATION SIGN} ".join(f"{edge:.3g}" for edge in volume.spacing_mm)
    voxels = " \N{MULTIPLICATION SIGN} ".join(map(str, volume.data.shape))
    facts = [
        ("Grid", f"{voxels} voxels of {edges} mm, that of the scan"),
        ("Brain mask", str(mark.options["BrainMask"])),
        ("Model", f"{model.card.get('recipe', model.method.name)}, SHA-256 {mark.model_sha256[:12]}"),
        ("pdsynth", mark.version),
    ]
    if synthesis.uncertainty is not None:
        facts.insert(2, ("Uncertainty calibrated", str(synthesis.uncertainty_mark.statistic["Calibration"])))
    return facts
