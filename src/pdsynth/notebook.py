"""How volumes, models, pairs and syntheses look in a notebook: a few slices and lines of text, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import nibabel as nib
import numpy as np
from markupsafe import Markup

from pdsynth.data.pairs import Pairs
from pdsynth.imaging.nifti import Volume
from pdsynth.report.pictures import PLANES, View
from pdsynth.report.words import MODALITIES, synthetic
from pdsynth.synthesis import Model, Synthesis
from pdsynth.types import Available, Modality, Split, counted

PERCENTILE = 99.5  # of the values above 0; the brightest colour begins there
FRAME = "display:inline-block; margin:0 12px 12px 0; padding:10px; background:#000; color:#d6dade; border-radius:8px"


@singledispatch
def html(instance: object) -> str:
    """HTML of a volume, a model, pairs or a synthesis, for a notebook. Raises TypeError for another object.

    The pictures of a synthesis are marked as synthetic, and pairs of simulated people as SIMULATED. A volume alone has
    no record of its origin. Left is left.
    """
    raise TypeError(f"a {type(instance).__name__} has no picture")


@html.register
def _(volume: Volume) -> str:
    return _pictures(volume, "Volume")


@html.register
def _(synthesis: Synthesis) -> str:
    direction = synthesis.mark.direction
    title = f"{synthetic(False)} {MODALITIES[direction.target]} from {synthesis.source.name}"
    parts = [_pictures(synthesis.volume, title)]
    if synthesis.uncertainty is not None:
        parts.append(_pictures(synthesis.uncertainty, f"{synthetic(False)}: its SD", kind="deviation"))
    trust = "" if synthesis.round_trip_db is None else f"{synthesis.round_trip_db:.1f} dB"
    facts = {"round trip": trust, "samples": f"{len(synthesis.samples) or ''}", "notes": "; ".join(synthesis.notes)}
    return Markup("").join([*parts, _facts(facts)])


@html.register
def _(model: Model) -> str:
    card = model.card
    kind = "SIMULATED participant" if card.get("simulated") else "participant"
    people = counted(card["n_participants"], kind) if "n_participants" in card else ""
    facts = {
        "recipe": str(card.get("recipe", "")),
        "method": model.method.name,
        "trained on": f"{people} of {card.get('cohort', '?')}" if people else "",
        "preprocessing": str(model.preprocessing),
        "SD": "calibrated" if card.get("calibration") else "not calibrated",
        "draws samples": "yes" if model.method.generative else "no",
        "parameters": f"{sum(weight.numel() for weight in model.method.parameters()):,}",
        "weights (SHA-256)": model.sha256[:12],
        "device": model.device,
    }
    return Markup("<b>pdsynth model</b>, research only") + _facts(facts)


@html.register
def _(pairs: Pairs) -> str:
    whole = pairs.whole_scans()
    numbers = whole.table["available"].value_counts()
    people = {split: whole.table.loc[whole.table["split"] == split, "participant_id"].nunique() for split in Split}
    facts = {
        "participants": ", ".join(f"{number} {split}" for split, number in people.items() if number),
        "sessions": ", ".join(f"{numbers[name]} {name}" for name in Available if name in numbers),
        "preprocessing": str(pairs.preprocessing),
    }
    mark = "SIMULATED pairs" if pairs.simulated else "pairs"
    title = Markup("<b>{}</b> in {}").format(mark, pairs.root.name) + _facts(facts)
    both = np.flatnonzero(whole.table["available"] == Available.BOTH)
    if not len(both):
        return title
    first = int(both[0])
    person = f"{'SIMULATED ' if pairs.simulated else ''}{whole.table['participant_id'][first]}"
    volumes = [
        _pictures(Volume(whole.volume(m, first), pairs.grid.affine), f"{person}, {MODALITIES[m]}") for m in Modality
    ]
    return title + Markup("").join(volumes)


def _pictures(volume: Volume, title: str, kind: str = "grey") -> Markup:
    """Three slices through the middle of a volume, with a title above and the shape, voxels and values below."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.data, volume.affine))
    data = np.asarray(turned.dataobj, np.float32)
    inside = data[data > 0]
    top = float(np.percentile(inside, PERCENTILE)) if inside.size else 1.0
    view = View.around(np.ones(data.shape, bool), turned.affine, cuts_mm=None)
    pictures = (
        Markup('<img src="{}" alt="{} slice, {}" style="display:inline; margin:0 2px">').format(address, plane, place)
        for address, plane, place in zip(view.slices(data, top, kind), PLANES, view.labels, strict=True)
    )
    edges = " x ".join(f"{edge:.3g}" for edge in volume.spacing_mm)
    shape = " x ".join(map(str, volume.data.shape))
    values = f"{shape} voxels of {edges} mm; values {data.min():.3g} to {data.max():.3g}, brightest from {top:.3g}"
    frame = Markup('<div style="{}"><div>{}</div>{}<div style="font-size:smaller">{}</div></div>')
    return frame.format(FRAME, title, Markup("").join(pictures), values)


def _facts(facts: Mapping[str, str]) -> Markup:
    """A table of names and texts; a fact without a text is left out."""
    rows = (
        Markup('<tr><td style="text-align:left">{}</td><td style="text-align:left">{}</td></tr>').format(*each)
        for each in facts.items()
        if each[1]
    )
    return Markup("<table>{}</table>").format(Markup("").join(rows))
