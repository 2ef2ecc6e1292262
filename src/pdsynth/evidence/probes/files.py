"""File of the probes: probes.json, with numbers by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pdsynth.files import read_json, write_json
from pdsynth.results.records import from_json, to_json
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction, InputError

NAME = "probes.json"


@dataclass(frozen=True)
class Memory:
    """Memorisation in one direction of synthesis: `nearest_neighbour_ratio` to three sets of people.

    membership: see `membership_auc`. ratio_to_all: to all training participants. ratio_to_few: to as many training
    participants as there are strangers, or to all of them if there are fewer. ratio_to_strangers: to people who are not
    in the training set.
    """

    direction: Direction
    ratio_to_all: float
    ratio_to_few: float
    ratio_to_strangers: float
    membership: Estimate


@dataclass(frozen=True)
class Memorisation:
    """Results of the memorisation probe, one row per direction.

    trained_on, few, strangers: numbers of people in the three sets of `Memory`, to which distances are measured.
    members, others: numbers of training participants and of other people whose errors are compared.
    """

    trained_on: int
    few: int
    strangers: int
    members: int
    others: int
    rows: list[Memory]


@dataclass(frozen=True)
class Lesion:
    """`lesion_response` in one direction, of the model's output or, if of_source is true, of the source itself.

    sensitivity (share of detected lesions) and false_positives (share of positions): means over people.
    contrast_to_noise: median over the lesions of all people.
    """

    of_source: bool
    direction: Direction
    sensitivity: float
    false_positives: float
    contrast_to_noise: float


@dataclass(frozen=True)
class Lesions:
    """Results of the lesion probe.

    people: number of people; lesions: number of lesions per person, inserted one at a time; radius_mm: their radius,
    mm; factor: signal inside a lesion divided by the signal without it; noise_sd: SD of the noise in the brain, in the
    unit of the source (0 to 1).
    """

    people: int
    lesions: int
    radius_mm: float
    factor: float
    noise_sd: float
    rows: list[Lesion]


@dataclass(frozen=True)
class Change:
    """`counterfactual_response` in one direction: the synthesised change between two severities and the real change.

    clear_regions: number of regions with a clear real change (p < 0.05), in which signs are compared.
    """

    direction: Direction
    slope: Estimate
    sign_agreement: Estimate
    clear_regions: int


@dataclass(frozen=True)
class Counterfactual:
    """Results of the probe with known changes.

    people: number of SIMULATED people. severities: the two disease severities at which each of them is simulated, the
    same for all (0 healthy, 1 most severe). rows: one per direction of synthesis.
    """

    people: int
    severities: list[float]
    rows: list[Change]


@dataclass(frozen=True)
class Probes:
    """The probes of a model (memorisation, inserted lesions, known changes); None if a probe was not measured.

    reasons: the reason by name of a probe that could not be measured. Known changes are measured on simulated data
    only, and have no reason.
    """

    recipe: str
    memorisation: Memorisation | None
    lesions: Lesions | None
    counterfactual: Counterfactual | None
    reasons: dict[str, str]

    def write(self, root: Path) -> Path:
        """Write probes.json into a results folder; returns its path. A number that is not finite is null."""
        write_json(root / NAME, to_json(self))
        return root / NAME

    @classmethod
    def read(cls, root: Path) -> Probes | None:
        """The probes of a results folder; None if there is no probes.json.

        Raises InputError if the file is damaged, or comes from an older version, which wrote sentences and not numbers.
        """
        path = root / NAME
        if not path.exists():
            return None
        try:
            return from_json(cls, read_json(path))
        except (KeyError, TypeError, ValueError) as error:
            remedy = "run `pdsynth evidence` again, or remove the file to report without it"
            raise InputError(
                path, "does not contain probes of this version, whose results are numbers by name", remedy
            ) from error
