"""Region patterns: the region means of every evaluated scan, real and by each method. Input of most claims.

On disk: `patterns.tsv`, with one row per scan and origin ("real" or the method that synthesised it) and one column per
region, and `regions.tsv`, which describes these columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.atlas import Atlas
from pdsynth.imaging.spatial import Grid
from pdsynth.results.tables import write_table
from pdsynth.schemas import Kind, Number, read_table
from pdsynth.types import NA, Diagnosis, Direction, InputError, Modality

REAL = "real"
NAME, REGIONS = "patterns.tsv", "regions.tsv"
PEOPLE = ["participant_id", "session_id", "site", "diagnosis", "age", "sex", "education"]
SCAN = ["participant_id", "session_id"]
TEXT = ("participant_id", "session_id", "site", "diagnosis", "sex", "modality", "origin")
COLUMNS = {  # of patterns.tsv, besides one per region
    **dict.fromkeys(("participant_id", "session_id", "site", "diagnosis", "sex", "origin"), str),
    **dict.fromkeys(("age", "education"), Number),
    "modality": Kind,
}
REGION_COLUMNS = {**dict.fromkeys(("region", "name", "network"), str), **dict.fromkeys("xyz", Number)}
Values = Mapping[tuple[Modality, str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Patterns:
    """Mean signal of each of R regions in N scans, real and synthesised, and the descriptions of scans and regions.

    values: (N, R) by modality and origin, which is "real" or the name of the method that synthesised the scan. people:
    one row per scan with the columns participant_id, session_id, site, diagnosis, age, sex and education; an unknown
    diagnosis, age, sex or education is NaN. regions: R rows with the columns region (r1, r2, ...), name, network and x,
    y, z (centre in mm, MNI).
    """

    people: pd.DataFrame
    regions: pd.DataFrame
    values: Values

    @property
    def methods(self) -> list[str]:
        """The names of the methods that synthesised scans, in the order of the file."""
        return list(dict.fromkeys(origin for _, origin in self.values if origin != REAL))

    def pair(self, method: str, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
        """Region means of the real scans of the target modality, and of those by the method, (N, R) each.

        Raises KeyError if the method synthesised no scan of this modality.
        """
        return self.values[direction.target, REAL], self.values[direction.target, method]

    def one_per_participant(self) -> Patterns:
        """The region means and descriptions of the first scan (session) of each participant."""
        return self.where(~self.people["participant_id"].duplicated().to_numpy())

    def where(self, keep: np.ndarray) -> Patterns:
        """The region means and descriptions of the scans for which keep (N,) bool is true."""
        people = self.people[keep].reset_index(drop=True)
        return Patterns(people, self.regions, {key: values[keep] for key, values in self.values.items()})


def describe_regions(atlas: Atlas, grid: Grid) -> pd.DataFrame:
    """A table of the regions of an atlas, one row per region: region (r1, r2, ...), name, network, x, y, z.

    x, y, z: the centre of the region in mm, in the space of the grid.
    """
    names = [f"r{number}" for number in range(1, len(atlas) + 1)]
    table = pd.DataFrame({"region": names, "name": atlas.names, "network": atlas.networks})
    table[["x", "y", "z"]] = atlas.centres(grid.affine).round(1)
    return table


def save(patterns: Patterns, out: Path) -> None:
    """Write region means as patterns.tsv, and the description of the regions as regions.tsv, into a results folder."""
    parts = []
    for (modality, origin), values in patterns.values.items():
        kinds = patterns.people.assign(modality=str(modality), origin=origin)
        parts.append(pd.concat([kinds, pd.DataFrame(values, columns=patterns.regions["region"])], axis=1))
    tables = {REGIONS: patterns.regions, NAME: pd.concat(parts, ignore_index=True)}
    for name, table in tables.items():
        write_table(out / name, table)


def read(results: str | Path) -> Patterns:
    """Read the region means (patterns.tsv and regions.tsv) of a results folder.

    Raises InputError if a file is missing, incomplete or inconsistent.
    """
    results, again = Path(results), "run `pdsynth evaluate` again"
    table = read_table(results / NAME, COLUMNS, again, others=Number, text=TEXT, na_values=[NA])
    regions = read_table(results / REGIONS, REGION_COLUMNS, again, text=("region", "name", "network"), na_values=[NA])
    table = table.fillna({"site": NA, "session_id": ""})
    columns = {*PEOPLE, "modality", "origin", *regions["region"]}
    if len(table) == 0 or not columns <= set(table.columns):
        raise InputError(results / NAME, "lacks scans or columns", "run `pdsynth evaluate` again")
    groups = dict(iter(table.groupby(["modality", "origin"], sort=False)))
    people = next(iter(groups.values()))[PEOPLE].reset_index(drop=True)
    values = {}
    for (modality, origin), rows in groups.items():
        if rows[SCAN].to_numpy(str).tolist() != people[SCAN].to_numpy(str).tolist():
            problem = f"has other scans for {modality} from {origin} than for its first modality and origin"
            raise InputError(results / NAME, problem, "run `pdsynth evaluate` again")
        values[Modality(str(modality)), str(origin)] = rows[regions["region"]].to_numpy(float)
    return Patterns(people, regions, values)


def people_of(table: pd.DataFrame) -> pd.DataFrame:
    """A table with one row per scan that describes the participants, from the table of scans of a prepared folder.

    The columns are participant_id, session_id, site, diagnosis, age, sex and education. "n/a" and empty values become
    NaN in the columns age, education, diagnosis and sex. A column that the given table lacks is empty.
    """
    people = pd.DataFrame({name: table.get(name, pd.Series(pd.NA, index=table.index)) for name in PEOPLE})
    people = people.reset_index(drop=True)
    for name in ("age", "education"):
        people[name] = pd.to_numeric(people[name], errors="coerce")
    for name in ("diagnosis", "sex"):
        people[name] = people[name].where(~people[name].isin(["", NA, "nan"]))
    return people


def diagnosed(
    features: Values, people: pd.DataFrame, methods: Sequence[str]
) -> tuple[dict[tuple[Modality, str], np.ndarray], pd.DataFrame]:
    """The region means and the table of people, without the rows that have no diagnosis of NC, MCI or AD.

    features: (N, R) by modality and origin, "real" or the name of a method; people: N rows with the column diagnosis.
    methods: those of which scans are needed. Raises ValueError if the real scans of a modality or all scans of a method
    are missing, or if the number of rows is not that of people.
    """
    for modality in Modality:
        if (modality, REAL) not in features:
            raise ValueError(f"there are no real {modality} scans; evaluate participants who have both.")
    for (modality, origin), values in features.items():
        if len(values) != len(people):
            raise ValueError(
                f"{origin} {modality} has {len(values)} rows for {len(people)} people; give one row per person."
            )
    origins = {origin for _, origin in features} - {REAL}
    for method in methods:
        if method not in origins:
            raise ValueError(f"there are no scans by {method!r}; choose among {', '.join(sorted(origins)) or 'none'}.")
    known = people["diagnosis"].isin(list(Diagnosis)).to_numpy()
    return {key: values[known] for key, values in features.items()}, people[known].reset_index(drop=True)
