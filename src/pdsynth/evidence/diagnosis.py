"""Tables V and IX, completion and Fig. 7 from a results folder's patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pdsynth.evaluation.completion import complete
from pdsynth.evaluation.diagnosis import CONTROLS, SCHEMES, diagnose
from pdsynth.evaluation.embedding import embed, separation
from pdsynth.report import words
from pdsynth.report.embedding_figure import embedding_figure
from pdsynth.report.tables import COMPLETION, DIAGNOSIS, EMBEDDING, PATTERN_LOSS, POWER, SEPARATION
from pdsynth.results.entries import recipe_of
from pdsynth.results.folder import Results
from pdsynth.results.patterns import REAL, read
from pdsynth.results.tables import write_table
from pdsynth.statistics.power import power_table
from pdsynth.types import Modality

WITH_AND_WITHOUT = ("pds-ne-pa", "pds-ne")  # Table IX: the noise estimator with the pattern loss, and without


def write_diagnosis(results_dir: str | Path, methods: Sequence[str] | None = None, seed: int = 0) -> None:
    """Write table5.tsv, completion.tsv, embedding.tsv, separation.tsv, power.tsv and figure7.png, from patterns.tsv.

    methods: whose scans are used (default: the method under test and, as a control that knows nobody, the population's
    mean). A participant counts once, with the first session: who converts later is not two people. table9.tsv is
    written where both recipes of Table IX were evaluated. Raises InputError where a file of `evaluate` is missing,
    ValueError where a diagnosis is too rare for the folds or a method was not evaluated.
    """
    results, patterns = Results.read(Path(results_dir)), read(results_dir).one_a_person()
    root, tested = results.root, results.tested
    methods = list(methods or [tested, *(name for name in (words.AVERAGE,) if name in patterns.methods)])
    data = "SIMULATED" if results.simulated else "real"
    asks = {scheme.name: scheme.asks for scheme in (*CONTROLS, *SCHEMES)}

    def table(names: Sequence[str], without: Mapping[str, str] | None = None) -> pd.DataFrame:
        found = diagnose(patterns.values, patterns.people, names, seed, without=without)
        found.insert(0, "data", data)
        other = diagnose(patterns.values, patterns.people, names, seed, "linear-svm", repeats=1)
        found = found.join(other.filter(regex="^balanced_accuracy").add_prefix("svm_"))
        return found.assign(asks=found["scheme"].map(asks).fillna(""))

    schemes = table(methods)
    write_table(root / DIAGNOSIS, schemes)
    of_recipe = {recipe_of(name)[0]: name for name in patterns.methods}  # of a benchmark also in a small size
    if set(WITH_AND_WITHOUT) <= of_recipe.keys():
        pair = [of_recipe[name] for name in WITH_AND_WITHOUT]
        write_table(root / PATTERN_LOSS, table(pair, dict([pair])))
    completed = complete(patterns.values, patterns.people, methods, seed=seed)
    completed.insert(0, "data", data)
    write_table(root / COMPLETION, completed)
    write_table(root / POWER, power_table(int(schemes["n"].iloc[0])))
    maps, parted = [], []
    for modality in Modality:
        origins = {origin: patterns.values[modality, origin] for origin in (REAL, tested)}
        maps.append(embed(origins, patterns.people["participant_id"].tolist()).assign(modality=modality.value))
        parted.append(separation(origins, patterns.people).assign(modality=modality.value, method=tested))
    coordinates = pd.concat(maps, ignore_index=True)
    write_table(root / EMBEDDING, coordinates)
    write_table(root / SEPARATION, pd.concat(parted, ignore_index=True))
    embedding_figure(coordinates, patterns.people, root / "figure7.png", results.simulated)
