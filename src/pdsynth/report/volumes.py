"""report.html of a folder of `pdsynth synthesize`: its volumes beside their source scans, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdsynth import manifest
from pdsynth.files import read_json
from pdsynth.outcomes import TABLE, read_outcomes
from pdsynth.report import viewer, words
from pdsynth.report.filled import filled, limits, verdict
from pdsynth.report.page import PAGE
from pdsynth.report.pictures import colour_bar
from pdsynth.report.rendering import render, scripts
from pdsynth.report.shown import MOST_SHOWN, refuse_unknown
from pdsynth.results.folder import synthesised_in
from pdsynth.types import InputError


def write_volumes(folder: str | Path, sources: str | Path | None = None, participants: Sequence[str] = ()) -> Path:
    """Write report.html into a folder of `pdsynth synthesize`; returns the path of the page.

    The page contains volumes in a viewer, and loads nothing. sources: the dataset or the scan from which they were
    made, whose scans are shown beside them; None shows the volumes alone. participants: whom the page shows, at most 6;
    without them, it shows the three volumes of each modality with the lowest round trip. Raises InputError if the
    folder has no volume, if a participant has none, if more than 6 are named, or if a file is damaged.
    """
    root = Path(folder)
    outcomes = read_outcomes(root / TABLE).set_index("file")
    found = synthesised_in(root, root if sources is None else Path(sources))
    if not found:
        raise InputError(root, "holds no synthesised volume", f"see the reasons in {TABLE}")
    chosen, most = found, MOST_SHOWN // 2
    if participants:
        person_of = {
            each.image: outcomes["participant_id"].get(each.image.relative_to(root).as_posix()) for each in found
        }
        refuse_unknown(root, participants, sorted({str(name) for name in person_of.values() if name}))
        chosen, most = [each for each in found if person_of[each.image] in participants], len(found)
    scans = filled(chosen, root, most)
    tops = limits(scans)
    unit = words.unit(found[0].sidecar.get("Preprocessing") or {})
    simulated = bool(read_json(root / "dataset_description.json").get("Simulated"))
    context = {
        "simulated": simulated,
        "sharing": False,
        "manifest": manifest.read(root),
        "number": len(found),
        "named": bool(participants),
        "volumes": viewer.of_synthesised(scans, tops, simulated),
        "has_real": False,
        "missing": [],
        "directions": [
            {"key": d.value, "name": words.DIRECTIONS[d]} for d in dict.fromkeys(s.direction for s in scans)
        ],
        "limits": tops,
        "unit": unit.partition(",")[0],  # the receive field is in the volumes
        "states_sd": any(scan.deviation is not None for scan in scans),
        "spread": "SD of the synthesised volume",
        "colour_bar": colour_bar,
        "sources": sum(scan.source is not None for scan in scans),
        "rows": [
            {
                "file": scan.file,
                "doubt": (doubt := str(outcomes["reason"].get(scan.file, ""))),
                "verdict": verdict(scan.round_trip, scan.least, bool(doubt)),
            }
            for scan in scans
        ],
        "round_trips": any(scan.round_trip is not None for scan in scans),
    }
    return render(root / PAGE, "volumes.html.j2", True, context | scripts("viewer.js"))
