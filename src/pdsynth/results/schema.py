"""The schemas of the JSON files of a results folder: metrics.json, the parts of manifest.json, grid.json, sidecars."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from pdsynth.methods.checkpoint import CardEntries
from pdsynth.schemas import Affine, Count, Manifest, Real, Way

Interval = Annotated[list[Real | None], Field(min_length=2, max_length=2)]
Text = Annotated[str, Field(min_length=1)]


class Score(BaseModel):
    """A score as mean over participants, with its 95 % interval."""

    mean: Real
    ci95: Interval


class Scores(BaseModel, extra="allow"):
    """The scores of a method in one direction of synthesis. The primary one is needed."""

    psnr_brain: Score
    __pydantic_extra__: dict[str, Score | Real | None]


class Directions(BaseModel):
    """The scores of a method."""

    fmri_to_dmri: Scores
    dmri_to_fmri: Scores


class Comparison(BaseModel):
    """The comparison of the method under test with another method."""

    direction: Way
    method: str
    against: str
    psnr_brain_difference: Real
    ci95: Interval
    p: Real
    p_holm: Real


class Metrics(BaseModel):
    """The entries of metrics.json. Version 0.1.0 wrote no `times`."""

    simulated: bool
    split: str
    n_participants: Annotated[int, Field(ge=1)]
    n_scans: Count
    seed: int | None = None
    samples: Count = 0
    uncertainty_from_samples: list[str] = []
    methods: Annotated[dict[Text, Directions], Field(min_length=1)]
    comparisons: list[Comparison] = []
    times: dict[str, dict[Way, dict[str, Real]]] = {}


class _Model(BaseModel):
    sha256: str = ""
    card: CardEntries = Field(default_factory=CardEntries)
    settings: dict[str, Any] = {}


class _Parameters(BaseModel):
    grid_mm: Real = 4.0
    segments: Count = 1
    split: list[Real] = []
    denoise: bool = False
    realign: bool = False
    intensity: Annotated[str, Field(pattern="^(flat-median|percentile)$")] = "percentile"


class _Prepared(BaseModel):
    version: str | None = None
    started: str | None = None
    parameters: _Parameters | None = None
    seed: int | None = None
    outputs: dict[str, str] | None = None


class _Group(BaseModel):
    split: str
    site: str
    diagnosis: str
    sex: str
    participants: Count


class _Ages(BaseModel):
    known: Count
    mean: Real | None
    sd: Real | None
    min: Real | None
    max: Real | None


class _Flagged(BaseModel):
    scans: Count
    flagged: Count


class _Data(BaseModel):
    cohort: str = ""
    simulated: bool = False
    prepared: _Prepared | None = None
    n_participants: Count = 0
    n_sessions: Count = 0
    available: dict[str, Count] = {}
    groups: list[_Group] = []
    ages: dict[str, _Ages] = {}
    rejected: dict[str, Count] | None = None
    flagged: _Flagged | None = None


class ResultsManifest(Manifest):
    """The entries of the manifest.json of a results folder: those of every manifest, the models and the data."""

    models: dict[str, _Model] = Field(default={})
    data: _Data = Field(default_factory=_Data)


class Place(BaseModel):
    """The entries of grid.json."""

    affine: Affine
