"""The tables on diagnosis: each scheme with its question, in new files and in those of version 0.1.0."""

from pdsynth.evidence.diagnosis.compute import CONTROLS, SCHEMES
from pdsynth.evidence.diagnosis.files import SCHEME_SCORES, SchemeScores
from pdsynth.evidence.diagnosis.section import QUESTIONS, sections
from pdsynth.results.folder import Results
from pdsynth.results.tables import write_table
from rows import filled


def test_every_scheme_with_scans_has_one_question():
    assert list(QUESTIONS) == [scheme.name for scheme in (*CONTROLS, *SCHEMES)]
    assert len(set(QUESTIONS.values())) == len(QUESTIONS)


def test_the_report_adds_the_question_of_a_scheme_to_old_and_new_files(tmp_path):
    both = (("m", "S4"), ("", "site only"))
    rows = [filled(SchemeScores, method=m, scheme=scheme, confusion='{"NC": {"NC": 1}}') for m, scheme in both]
    new = SCHEME_SCORES.table(rows)
    assert "asks" not in new
    for table in (new, new.assign(asks="Does fMRI made from dMRI tell more than it?")):
        write_table(tmp_path / SCHEME_SCORES.name, table)
        (section,) = sections(Results(tmp_path, {"split": "test", "methods": {"m": {}}}, table, {}))
        first = [cells[0] for cells in section.tables[0].rows]
        assert first == ["S4: Is synthesised fMRI better than its source dMRI?", "site only"]
