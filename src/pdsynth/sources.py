"""The scans of a dataset from which others are synthesised, and the options on which a synthesised volume depends.

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdsynth import __version__, manifest
from pdsynth.cohorts.cohort import Cohort, Scan
from pdsynth.cohorts.names import SyntheticPaths, synthetic_paths
from pdsynth.cohorts.scans import lacks_space
from pdsynth.data.preprocessing import SHELL, recorded_by
from pdsynth.data.sessions import relative
from pdsynth.files import read_json
from pdsynth.outcomes import COLUMNS, HAS_BOTH
from pdsynth.types import Direction, InputError, Space
from pdsynth.weights import model_path, weights_sha256

NOT_MISSING = "its own scan is there, but was refused"
SIDECAR_FIELDS = {  # of a volume, by the names of `Options.entries`
    "version": "PdsynthVersion",
    "model_sha256": "ModelSHA256",
    "preprocessing": "Preprocessing",
    "samples": "Samples",
    "steps": "SamplingSteps",
    "seed": "Seed",
    "shell": "Shell",
    "space": "OutputSpace",
}
UNRECORDED = {"space": Space.NATIVE}  # an option that had one value only, before it was recorded
OTHER = {"model_sha256": "another model", "preprocessing": "another preprocessing"}


@dataclass(frozen=True)
class Options:
    """Options of a synthesis: number of random samples of a generative model, their sampling steps and their seed.

    A method with a fixed number of steps ignores `steps`. shell: b-value in s/mm^2 of a synthesised dMRI. space: the
    standard space in which the volumes are written too; "native" for none.
    """

    samples: int = 0
    steps: int = 8
    seed: int = 0
    shell: float = SHELL
    space: Space = Space.NATIVE

    def entries(self, model: str | Path) -> dict[str, Any]:
        """All on which a volume depends besides its source: version, model_sha256, preprocessing and the options."""
        card = read_json(model_path(model) / "config.json").get("card")
        preprocessing = recorded_by(card) if isinstance(card, dict) else None  # `Model.load` refuses it
        identity = {"model_sha256": weights_sha256(model), "preprocessing": preprocessing}
        return {"version": __version__, **identity, **asdict(self)}


def refuse_other_options(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError unless `before`, the manifest of `out`, is of a synthesis with `now`, of `Options.entries`."""
    if not manifest.made_by_pdsynth(before) or before.get("command") != "synthesize":
        raise InputError(out, "was not written by pdsynth synthesize", "choose another folder")
    recorded = UNRECORDED | before.get("parameters", {}).get("made_as", {})
    differs = [
        OTHER.get(name) or f"{name} {recorded.get(name)}, not {value}"
        for name, value in now.items()
        if recorded.get(name) != value
    ]
    if differs:
        problem = f"holds volumes that were made with {'; '.join(differs)}"
        raise InputError(out, problem, "give the same, choose another folder, or replace it with --overwrite")


@dataclass(frozen=True)
class Source:
    """A scan to synthesise the other modality from, with participant ("sub-1") and session ("ses-2", "" for none)."""

    scan: Scan
    participant_id: str
    session_id: str

    @property
    def direction(self) -> Direction:
        return Direction.to(self.scan.modality.other)

    def paths(self, out: Path, draws: int = 0, space: Space = Space.NATIVE) -> SyntheticPaths:
        """Paths in the folder `out` of the volume synthesised from this scan, its SD and its `draws` random samples."""
        names = self.participant_id, self.session_id
        return synthetic_paths(out, *names, self.scan.path, self.direction, draws, space)

    def images(self, out: Path, options: Options) -> list[SyntheticPaths]:
        """Paths of all images of a synthesis in the folder `out`: in the native space, then in that of the options."""
        spaces = [Space.NATIVE, *([options.space] if lacks_space(self.scan.path, options.space) else [])]
        return [self.paths(out, options.samples, space) for space in spaces]

    def row(
        self,
        root: Path,
        status: str,
        file: str = "",
        draws: int = 0,
        trust: str = "",
        reason: str = "",
        remedy: str = "",
    ) -> dict[str, str]:
        """Its row of synthesised.tsv, as texts by column.

        root: folder of the dataset, to which the path of the source is relative. status: made, not made, skipped or
        refused. file: path of the volume in the output folder; "" if there is none. draws: number of random samples
        beside the volume, left out without a file. trust: PSNR in dB of the source scan that is synthesised back from
        the volume. reason: why there is no volume or, if it was made, the doubts about its source. remedy: advice on
        the reason.
        """
        source, target, drawn = relative(self.scan.path, root), str(self.direction.target), str(draws) if file else ""
        values = (self.participant_id, self.session_id, source, target, status, file, drawn, trust, reason, remedy)
        return dict(zip(COLUMNS, values, strict=True))


def sources(cohort: Cohort, replace_refused: bool = False) -> Iterator[tuple[Source, str]]:
    """Yield every scan of a cohort with the reason why the other modality is not synthesised from it; "" if it is.

    If the other modality was scanned but refused, it is synthesised only if `replace_refused` is true.
    """
    for subject, session in cohort:
        for modality, scan in session.scans.items():
            target, reason = modality.other, ""
            if target in session.scans:
                reason = f"{HAS_BOTH} {target}"
            elif target in session.refused and not replace_refused:
                reason = f"{NOT_MISSING} ({session.refused[target]})"
            yield Source(scan, subject.participant_id, session.session_id), reason
