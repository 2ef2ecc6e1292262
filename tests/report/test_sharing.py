"""A report for sharing: no picture, no identifier, nothing about fewer than five people."""

import json
import re
import shutil

import pandas as pd
import pytest

from pages import EVIL, EVIL_METHOD, Page
from pdsynth import folders
from pdsynth.cli import main
from pdsynth.evidence.claims import write_report
from pdsynth.privacy import findings
from pdsynth.report.sections import Figure, Section, Table
from pdsynth.report.sharing import released, shareable, short_names
from pdsynth.types import Direction, InputError

ROWS = [["a"], ["b"], ["c"]]


@pytest.fixture(scope="module")
def html(many_results):
    return write_report(many_results, for_sharing=True).read_text(encoding="utf-8")


def test_there_is_no_picture_and_no_volume(html, many_results):
    page = Page(html)
    assert page.open == page.wrong == [] and page.scripts == [""]
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    assert "<img" not in html and "canvas role" not in html and 'id="volumes"' not in html and 'id="viewer"' not in html
    assert "no images and names no participant" in html and "SIMULATED" in html and "For research only" in html
    assert "<svg" in html and "Image quality, fMRI" in html  # what is left is a report


def test_no_participant_session_file_or_folder_is_named(html, many_results, tmp_path):
    table = pd.read_csv(many_results / "metrics.tsv", sep="\t", dtype=str)
    ids = set(table["participant_id"])
    assert len(ids) == 12 and EVIL in ids
    assert not [name for name in ids if name in html or name.replace("'", "&#39;") in html]
    assert not re.search(r"sub-|&lt;script|\.nii|alert\('1'\)", html)
    assert str(many_results) not in html
    (tmp_path / "page.html").write_text(html)
    assert findings(tmp_path) == []


def test_small_groups_are_left_out_with_one_more_so_that_they_cannot_be_computed(html):
    lead = html[html.index('class="lead"') : html.index("</header>")]
    groups = html[html.index('aria-label="By site and diagnosis"') :].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(\w+)<small>(\w+)</small></th><td>(\d+)</td>', groups)
    assert [row for row in rows if row[1] == "site"] == [("a", "site", "6"), ("b", "site", "6")]
    shown = [row for row in rows if row[1] == "diagnosis"]
    assert len(shown) == 1 and shown[0][2] == "5"  # of 5 NC, 5 AD and 2 MCI
    assert f"5 {shown[0][0]} " in lead and "2 MCI" not in lead


@pytest.mark.parametrize(
    ("people", "within", "expected"),
    [
        ([12, 5, 4, 3], "aaaa", [True, True, False, False]),
        ([12, 5, 4], "aaa", [True, False, False]),
        ([12, 6, 5], "aaa", [True, True, True]),
        ([4, 9, 2, 8], "aabb", [False, False, False, False]),
        ([4], "a", [False]),
        ([], "", []),
    ],
)
def test_a_group_is_released_if_neither_it_nor_the_rest_is_small(people, within, expected):
    assert released(people, within) == expected


def test_sections_of_few_people_and_their_rows_and_pictures_are_left_out():
    picture = Figure("a picture", "data:image/png;base64,AAAA")
    table = Table("t", ["h"], ROWS, [True, False, True], ["x", "y", "z"], people=[9, 9, 3], within=["u", "v", "u"])
    kept, left_out = shareable(
        [
            Section("k", "kept", 1, "lead", ["found"], [table, Table("whole", ["h"], ROWS)], [picture], people=5),
            Section("l", "few", 2, "lead", people=4),
            Section("m", "all", 3, "lead", (), [Table("none", ["h"], [["a"]], people=[2], within=["u"])], [picture]),
        ]
    )
    assert left_out == ["few"] and [section.title for section in kept] == ["kept", "all"]
    assert all(not section.figures for section in kept) and kept[1].tables == []
    cut, whole = kept[0].tables
    assert (cut.rows, cut.marked, cut.notes) == ([["b"]], [False], ["y"]) and whole.rows == ROWS


def test_folders_in_the_names_of_methods_are_left_out(many_results, tmp_path):
    earlier = "pds (/home/jdoe/run/model)"  # of version 0.1.0
    names = ["default (pds)", earlier, "unet", "clinic-a (local-ridge)", "/home/jdoe/x (y)"]
    assert short_names(names) == {earlier: "pds (2)", names[3]: "local-ridge (4)", names[4]: "model (5)"}
    shutil.copytree(many_results, tmp_path / "run")
    for name in ("metrics.json", "metrics.tsv"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace("copy-source", "copy-source (/home/jdoe/model)"))
    text = write_report(tmp_path / "run", for_sharing=True).read_text(encoding="utf-8")
    assert "jdoe" not in text and text.count("copy-source (3)") > 4


@pytest.fixture(scope="module")
def named_results(make_prepared, tmp_path_factory):
    """Results of two models, with a name planted in each entry that a user, a folder or a cohort gives its name to."""
    root = tmp_path_factory.mktemp("named")
    shutil.copytree(make_prepared(20, test=12).root, root / "zzprepared (2)")
    verbs = [
        ["train", "zzprepared (2)", "zzmodel", "--recipe", "population-mean"],
        ["train", "zzprepared (2)", "zzother-zzmodel", "--recipe", "population-mean"],
        ["evaluate", "zzprepared (2)", "--no-controls", "--out", "zzresults"],
    ]
    verbs[-1] += ["--model", "zzmodel/model", "--model", "zzother-zzmodel/model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for words in verbs:
            with pytest.raises(SystemExit) as stop:
                main(words)
            assert not stop.value.code
    path = root / "zzresults" / "manifest.json"
    entries = json.loads(path.read_text())
    entries["parameters"]["atlas"] = "zzatlas.nii.gz"
    for model in entries["models"].values():
        given = {
            "n_participants": 9,
            "scale": {},
            "simulated": True,
            "cohort": "zzcalibrated",
            "coverage_90": dict.fromkeys(Direction),
        }
        model["card"] |= {"init": "zzinitial", "training_data": "zzdata", "made_on": "zzmachine", "calibration": given}
    path.write_text(json.dumps(entries))
    return root / "zzresults"


def test_no_name_that_the_results_record_of_a_cohort_or_folder_is_in_the_page(named_results):
    recorded = "".join((named_results / name).read_text() for name in ("manifest.json", "metrics.json"))
    names = set(re.findall(r"zz[a-z-]+", recorded))
    given = {"zzmodel", "zzother-zzmodel", "zzprepared"}
    assert names == given | {"zzatlas", "zzcalibrated", "zzinitial", "zzdata", "zzmachine"}
    assert "(cohort zzprepared (2))" in recorded
    text = write_report(named_results, for_sharing=True).read_text(encoding="utf-8")
    assert re.findall(r".{30}zz.{30}", text) == [] and "cohort zz" not in text
    for model in ("population-mean (1)", "population-mean (2)"):
        assert f"<li>{model} was trained on 8 SIMULATED participants.</li>" in text
    assert "zzother-" not in text and "-population-mean" not in text  # the name of one holds that of the other


def test_results_of_four_people_are_not_shared(results):
    assert json.loads((results / "metrics.json").read_text())["n_participants"] == 4
    with pytest.raises(InputError, match=r"4 participants.*5 participants or more"):
        write_report(results, for_sharing=True)
    assert not (results / "report_for_sharing.html").exists()


def test_the_verb_writes_only_the_page_for_sharing(many_results, tmp_path, prepared, capsys):
    out = tmp_path / "run"
    with folders.making(out, overwrite=False) as work:
        for name in ("metrics.json", "metrics.tsv", "manifest.json"):
            shutil.copy(many_results / name, work.folder)
        shutil.copytree(many_results / "predictions", work.folder / "predictions")
    before = {path.name for path in out.iterdir()}
    with pytest.raises(SystemExit) as stop:
        main(["report", str(out), "--for-sharing"])
    assert not stop.value.code
    assert {path.name for path in out.iterdir()} - before == {"report_for_sharing.html"}
    with pytest.raises(SystemExit) as stop:
        main(["report", str(out), "--for-sharing", "--participants", "sub-19"])
    assert stop.value.code == 2 and "leave one of the two out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["report", str(prepared.root), "--for-sharing"])
    assert stop.value.code == 2
    assert "is a prepared folder" in capsys.readouterr().err


def test_the_method_of_a_malicious_name_is_still_text(html):
    assert EVIL_METHOD not in html and "mine &lt;img src=" in html
