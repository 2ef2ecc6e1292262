"""Which of the saved scans the report shows, and their volumes and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.report import words
from pdsynth.report.pictures import View
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results
from pdsynth.types import Direction, InputError

MOST_SHOWN = 6  # participants on one page
LEAST_ENDS = {"signal": 0.1, "difference": 0.1, "deviation": 0.02}  # of the colour scales
SIGNAL_END, DEVIATION_END = (99.5, 20), (99, 50)  # arguments of `upper_end`


@dataclass(frozen=True)
class Shown:
    """A scan that the report shows. row: its position in the saved arrays. rank: by PSNR, 1 is the best."""

    row: int
    rank: int


def chosen(results: Results, names: Sequence[str] = ()) -> list[Shown]:
    """The scans that the report shows: at most 6, among those with saved volumes.

    Scans are ranked by the PSNR of the method under test, summed over both directions of synthesis. The best, the worst
    and four evenly spaced between are chosen, so that poor results are visible too, from the best to the worst. names:
    participants to show instead, in this order, each with the first session. Raises InputError if more than 6 are
    named, and if one of them has no saved volume.
    """
    scores = (results.scan_scores(results.tested, d)[PRIMARY].to_numpy(float) for d in Direction)
    number, ids = len(results.imaged), results.imaged["participant_id"].tolist()
    ranked = np.argsort(-sum(each[:number] for each in scores), kind="stable").tolist()
    refuse_unknown(results.root, names, ids)
    if names:
        rows = [ids.index(name) for name in dict.fromkeys(names)]
    else:
        ranks = np.linspace(0, number - 1, min(number, MOST_SHOWN)).round().astype(int)
        rows = [ranked[rank] for rank in ranks]
    return [Shown(row, ranked.index(row) + 1) for row in rows]


def refuse_unknown(root: Path, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError if more than 6 participants are to be shown, or one who is not among the known ones.

    root: the folder of the page. names: the participants to show. known: those with volumes in the folder.
    """
    if len(set(names)) > MOST_SHOWN:
        raise InputError(", ".join(names), "are too many participants for one page", f"name at most {MOST_SHOWN}")
    if unknown := [name for name in names if name not in known]:
        remedy = f"choose among {', '.join(dict.fromkeys(known))}"
        raise InputError(root, f"holds no volumes of {', '.join(unknown)}", remedy)


def limits(results: Results) -> dict[str, float]:
    """Upper ends of the colour scales of the report, for the signal, the difference from the real scan and the SD.

    Keys are "signal", "difference" and "deviation" (SD); values are in the unit of the volumes (0 to 1). They are the
    99.5th percentile of the real scans and the 99th percentiles of difference and SD, in the brain over the saved scans
    of the method under test, in each direction; the larger one is rounded up, and at least 0.1, 0.1 and 0.02.
    """
    ends = dict(LEAST_ENDS)
    for direction in Direction:
        real, brain = results.images(direction.target), results.images(f"{direction.target}_brain")
        synthesised = results.images(image_name(results.tested, direction))
        deviation = results.images(f"{image_name(results.tested, direction)}_std")
        if real is None or brain is None or synthesised is None:
            continue
        signal = np.asarray(real, np.float32)[brain]
        ends["signal"] = max(ends["signal"], upper_end(signal, *SIGNAL_END))
        error = np.abs(np.asarray(synthesised, np.float32) - real)[brain]
        ends["difference"] = max(ends["difference"], upper_end(error, 99, 20))
        if deviation is not None:
            spread = np.asarray(deviation, np.float32)[brain[: len(deviation)]]
            ends["deviation"] = max(ends["deviation"], upper_end(spread, *DEVIATION_END))
    return ends


def upper_end(values: np.ndarray, percentile: float, parts: int) -> float:
    """The upper end of a colour scale: a percentile of the values, rounded up to a multiple of 1 / parts.

    >>> upper_end(np.linspace(0, 1, 101), 87, 20)
    0.9
    """
    return float(np.ceil(np.percentile(values, percentile) * parts) / parts)


def about(results: Results, row: int) -> list[str]:
    """The known ones of session, diagnosis and site of a saved scan, as texts."""
    scan = results.imaged.iloc[row]
    site = f"site {scan['site']}" if scan["site"] else ""
    return [text for text in (scan["session_id"], scan["diagnosis"], site) if text]


def score_texts(results: Results, row: int, direction: Direction) -> list[str]:
    """PSNR and SSIM in the brain of the scan that the method under test synthesised, as "PSNR 25.1 dB"."""
    scores = results.scan_scores(results.tested, direction).iloc[row]
    psnr, ssim = (float(scores[name]) for name in (PRIMARY, "ssim_brain"))
    return [f"PSNR {words.number(psnr, 1)} dB", f"SSIM {words.number(ssim, 3)}"]


def saved(results: Results, name: str, row: int) -> np.ndarray:
    """One scan of predictions/<name>.npy; zeros if the file is missing, so that the report can still be written."""
    images = results.images(name)
    if images is None:
        shape = next(a.shape for n in Direction if (a := results.images(n.target)) is not None)
        return np.zeros(shape[1:], np.float32)
    return np.asarray(images[row], np.float32)


def view_of(results: Results) -> View:
    """The view of a box around the brains of all saved scans."""
    masks = np.stack([b for d in Direction if (b := results.images(f"{d.target}_brain")) is not None])
    return View.around(masks, results.affine)
