"""The work of the commands `roi`, `diagnose` and `evidence --leave-site-out`: compute claims and write their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdsynth.api import Model
from pdsynth.data.pairs import Pairs
from pdsynth.evidence.completion.compute import complete
from pdsynth.evidence.completion.files import ARMS
from pdsynth.evidence.diagnosis.compute import diagnoses
from pdsynth.evidence.diagnosis.files import PATTERN_LOSS, POWER, SCHEME_SCORES
from pdsynth.evidence.effects import charts as effects_charts
from pdsynth.evidence.effects.compute import effects_of
from pdsynth.evidence.effects.files import AGREEMENT, EFFECTS, GROUPS
from pdsynth.evidence.embedding.charts import embedding_figure
from pdsynth.evidence.embedding.compute import embedding
from pdsynth.evidence.embedding.files import FIGURE, POINTS, SEPARATIONS
from pdsynth.evidence.group_effects.files import COMPLETED
from pdsynth.evidence.group_effects.hidden import completed_effects
from pdsynth.evidence.sites.compute import leave_one_site_out
from pdsynth.evidence.sites.files import SITES
from pdsynth.report import words
from pdsynth.results.folder import Results
from pdsynth.results.patterns import read
from pdsynth.types import Size

BY_ROI = tuple(file.name for file in (EFFECTS, COMPLETED, AGREEMENT, GROUPS))
BY_DIAGNOSE = tuple(file.name for file in (SCHEME_SCORES, PATTERN_LOSS, ARMS, POWER, POINTS, SEPARATIONS))


def write_roi(results_dir: str | Path, seed: int = 0) -> None:
    """Compare region means and effects of disease of real and synthesised scans; the work of `pdsynth roi`.

    Reads the region means of all scans from patterns.tsv in the results folder. Writes into it effects.tsv,
    completed_effects.tsv, agreement.tsv, groups.tsv and, for each direction of synthesis, Figures 5 and 6 and a figure
    of the effects on the brain. Each participant counts once, with the first session; the PSNR in groups.tsv is the
    mean over sessions. seed: of all random numbers. Raises InputError if a file of `pdsynth evaluate` is missing.
    """
    results, patterns = Results.read(results_dir), read(results_dir).one_per_participant()
    effects, tested = effects_of(results, patterns, seed)
    effects.write(results.root)
    COMPLETED.write(results.root, completed_effects(patterns, seed))
    for direction, recovered in tested.items():
        effects_charts.draw(results, patterns, direction, recovered)


def write_diagnosis(results_dir: str | Path, methods: Sequence[str] | None = None, seed: int = 0) -> None:
    """Classify diagnoses from real and synthesised scans; the work of `pdsynth diagnose`.

    Reads the region means of all scans from patterns.tsv in the results folder. Writes into it table5.tsv,
    completion.tsv, power.tsv, embedding.tsv, separation.tsv and Figure 7. table9.tsv is written if both recipes of the
    paper's Table IX were evaluated. methods: names of the methods whose scans are used in table5.tsv and
    completion.tsv. The default is the method under test and, as a control without information about individuals, the
    population mean, if it was evaluated. embedding.tsv, separation.tsv and Figure 7 use the method under test. Each
    participant counts once, with the first session. seed: of all random numbers but those of the t-SNE maps, which have
    fixed seeds.

    Raises InputError if a file of `pdsynth evaluate` is missing; ValueError if there are fewer than two diagnoses, if
    one has fewer than five participants (the folds of the cross-validation), or if a method was not evaluated. Then no
    file is written.
    """
    results, patterns = Results.read(results_dir), read(results_dir).one_per_participant()
    root, tested = results.root, results.tested
    methods = list(methods or [tested, *(name for name in (words.AVERAGE,) if name in patterns.methods)])
    # All are computed before one is written: a claim that refuses the split must not leave half of the tables.
    diagnosed = diagnoses(patterns, methods, results.simulated, seed)
    completed = complete(patterns, methods, results.simulated, seed)
    found = embedding(patterns, tested)
    diagnosed.write(root)
    ARMS.write(root, completed)
    found.write(root)
    embedding_figure(POINTS.table(found.points), patterns.people, root / FIGURE, results.simulated)


def write_sites(out: Path, model: Model, pairs: Pairs, budget: float | None, seed: int, device: str) -> None:
    """Measure the quality at sites that were not in the training set, and write sites.tsv into the folder `out`.

    model: only its recipe and size are used. The recipe is trained anew on training participants of `pairs`, twice for
    each site: without this site, and on as many participants of all sites. budget: seconds of training steps for each
    training; None for the recipe's own number of steps. seed: of all random numbers. device: "auto", "cpu" or "cuda".
    The scores are those of the test participants of `pairs`. Raises ValueError if fewer than two sites have training
    participants and at least two test participants.
    """
    recipe, size = model.card["recipe"], model.card.get("size", Size.FULL)
    SITES.write(out, leave_one_site_out(recipe, pairs, budget=budget, seed=seed, device=device, size=size))
