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
    """Measures of memorisation of training participants by a model, in one direction of synthesis.

    ratio_to_all, ratio_to_few, ratio_to_strangers: distance from a synthesised scan of a new person to the nearest real
    scan of a set of people, divided by the same distance of a real scan of a new person (each a median over new
    people); 0 means copies. The three sets are all training participants with all their scans; as many training
    participants as there are strangers (or all of them if there are fewer), with one scan each; and strangers: people
    who are not in the training set. membership: probability that the error is lower for a training participant than for
    another person; 0.5 is ideal.
    """

    direction: Direction
    ratio_to_all: float
    ratio_to_few: float
    ratio_to_strangers: float
    membership: Estimate


@dataclass(frozen=True)
class Memorisation:
    """Measures of memorisation of training participants by a model, one row per direction of synthesis.

    trained_on, few, strangers: numbers of people in the three sets to which distances are measured: all training
    participants in the prepared folder, some of them, and people who are not in the training set. members, others:
    numbers of training participants and of people outside the training set (among them the strangers) whose errors are
    compared.
    """

    trained_on: int
    few: int
    strangers: int
    members: int
    others: int
    rows: list[Memory]


@dataclass(frozen=True)
class Lesion:
    """Visibility of inserted lesions in one direction of synthesis: in the output, or, for comparison, in the source.

    of_source: false for the output of the model, true for the source itself. sensitivity: share of lesions that are
    detected: the mean change inside is larger than 95 % of those in equal spheres elsewhere; false_positives: share of
    positions where noise alone changes the mean of a sphere by more than half of the median change of this person's
    lesions; both are means over people. contrast_to_noise: absolute difference of the mean changes inside a lesion and
    elsewhere, divided by the SD of the change elsewhere; median over the lesions of all people.
    """

    of_source: bool
    direction: Direction
    sensitivity: float
    false_positives: float
    contrast_to_noise: float


@dataclass(frozen=True)
class Lesions:
    """Results of a test whether a model shows lesions that are inserted into its source scans.

    people: number of people; lesions: number of lesions per person, inserted one at a time; radius_mm: their radius,
    mm; factor: signal inside a lesion divided by the signal without it; noise_sd: SD of the noise that is added in the
    brain, in the unit of the source (0 to 1). rows: for each direction of synthesis, one for the output and one for the
    source itself.
    """

    people: int
    lesions: int
    radius_mm: float
    factor: float
    noise_sd: float
    rows: list[Lesion]


@dataclass(frozen=True)
class Change:
    """The synthesised change between two severities of the same people, compared with the real change.

    direction: of synthesis. Changes of the mean signal of a region are averaged over people. slope: of the synthesised
    on the real changes over regions, through the origin; 1 is ideal. clear_regions: number of regions with a clear real
    change (t test over people, p < 0.05). sign_agreement: share of the clear regions in which both changes have the
    same sign; nan if there are none. Intervals are 95 %, over people.
    """

    direction: Direction
    slope: Estimate
    sign_agreement: Estimate
    clear_regions: int


@dataclass(frozen=True)
class Counterfactual:
    """Results of a test whether a model follows a known change of the disease in the same people.

    people: number of SIMULATED people. severities: the two disease severities (0 healthy, 1 most severe), the lower one
    first; each person is simulated at both. rows: one per direction of synthesis.
    """

    people: int
    severities: list[float]
    rows: list[Change]

    def __post_init__(self) -> None:
        if len(self.severities) != 2:
            raise ValueError(f"{len(self.severities)} severities are not two")


@dataclass(frozen=True)
class Probes:
    """Results of three tests of a model: memorisation, inserted lesions and known changes; None if a test was not made.

    recipe: name of the model's recipe. reasons: why a test could not be made, by its name, "memorisation" or "lesions".
    Known changes are tested on simulated data only, and have no reason.
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
        """Read probes.json from a results folder; None if there is no such file.

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
