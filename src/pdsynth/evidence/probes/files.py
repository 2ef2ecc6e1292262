"""File of the probes: probes.json, numbers by name."""

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
    """Memorisation in a direction: `nearest_neighbour_ratio` to three sets of people, and `membership_auc`.

    ratio_to_all: to all whom the model was trained on; ratio_to_few: to as many of them as there are strangers, or to
    all where these are fewer; ratio_to_strangers: to people whom it was not trained on.
    """

    direction: Direction
    ratio_to_all: float
    ratio_to_few: float
    ratio_to_strangers: float
    membership: Estimate


@dataclass(frozen=True)
class Memorisation:
    """trained_on, few, strangers: sizes of the three sets; members, others: of those whose errors are compared."""

    trained_on: int
    few: int
    strangers: int
    members: int
    others: int
    rows: list[Memory]


@dataclass(frozen=True)
class Lesion:
    """Lesions in a direction: `lesion_response` of the model's output, or of the source itself where of_source.

    sensitivity, false_positives: means over people; contrast_to_noise: median over lesions.
    """

    of_source: bool
    direction: Direction
    sensitivity: float
    false_positives: float
    contrast_to_noise: float


@dataclass(frozen=True)
class Lesions:
    """Number of people, lesions inserted in each, their radius (mm) and factor of brightness, and SD of the noise."""

    people: int
    lesions: int
    radius_mm: float
    factor: float
    noise_sd: float
    rows: list[Lesion]


@dataclass(frozen=True)
class Change:
    """The synthesised change of people between two severities against the real one: `counterfactual_response`."""

    direction: Direction
    slope: Estimate
    sign_agreement: Estimate
    clear_regions: int


@dataclass(frozen=True)
class Counterfactual:
    """Number of SIMULATED people, and the two severities at which each was simulated."""

    people: int
    severities: list[float]
    rows: list[Change]


@dataclass(frozen=True)
class Probes:
    """The probes of a model. One that is None was not measured; `reasons` says why, by its name."""

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
        """The probes of a results folder; None where there is no probes.json.

        Raises InputError for a file of an older version, which held sentences in place of numbers, or a damaged one.
        """
        path = root / NAME
        if not path.exists():
            return None
        try:
            return from_json(cls, read_json(path))
        except (KeyError, TypeError, ValueError) as error:
            remedy = "run `pdsynth evidence` again, or remove the file to report without it"
            raise InputError(
                path, "holds no probes of this version, whose results are numbers by name", remedy
            ) from error
