"""Every kind of finding is found in every kind of file, and the output of pdsynth has none."""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import zlib
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pdsynth import privacy
from pdsynth.cli import main
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.evidence.claims import write_cards, write_report
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.methods.base import MethodConfig
from pdsynth.methods.controls import CopySource, PopulationMean
from pdsynth.privacy import Finding, Kind, files, findings
from pdsynth.types import Direction, InputError


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A host and a user with names that no other text contains."""
    monkeypatch.setattr(socket, "gethostname", lambda: "neuro-pc7.uni.example")
    monkeypatch.setattr(privacy, "getpass", SimpleNamespace(getuser=lambda: "jdoe42"))  # pytest's own asks the module
    monkeypatch.setenv("HOME", "/home/jdoe42")


def found(folder) -> list[tuple[str, str, str]]:
    return [(each.file, str(each.kind), each.text) for each in findings(folder)]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", '{"root": "/home/someone/ALZ trial"}', "/home/someone/ALZ"),
        ("a.json", '{"root": "C:\\\\Users\\\\someone"}', "C:\\Users\\someone"),
        ("a.json", '{"root": "\\/mnt\\/disk1"}', "/mnt/disk1"),
        ("a.yaml", "root: /scratch/study", "/scratch/study"),
        ("a.log", "root=/tmp", "/tmp"),
        ("a.md", "see (/data/ours/b.nii.gz)", "/data/ours/b.nii.gz"),
        ("a.md", "see `/institute/study`", "/institute/study"),
        ("a.txt", "PATH=/usr/bin", "/usr/bin"),
        ("a.txt", "D:/study/x", "D:/study/x"),
        ("a.txt", r"on \\nas01\share\study", r"\\nas01\share\study"),
        ("a.txt", "file:///Users/someone/x", "/Users/someone/x"),
        ("a.tsv", "path\n/var/lib/x\n", "/var/lib/x"),
        ("a.html", "<pre>{&#34;root&#34;: &#34;/root/x&#34;}</pre>", "/root/x"),
        ("a.html", "<td>/srv/x</td>", "/srv/x"),
        ("a.svg", "<!-- made from /opt/x -->", "/opt/x"),
        ("README", "It lies in /home/someone.", "/home/someone."),
        ("long.txt", f"/home/{'x' * 100}", f"/home/{'x' * 73}…"),
    ],
)
def test_absolute_paths(name, text, what, tmp_path):
    (tmp_path / name).write_text(text)
    assert found(tmp_path) == [(name, "absolute path", what)]


@pytest.mark.parametrize(
    "text",
    [
        "https://host/home/x and image/png, text/html",
        "<p>a</p><br/>",
        "bids::sub-01/func/x.nii.gz bids::/sub-01/func/x.nii.gz",
        "PSNR / SSIM and/or 12/05/2020, 3 /4/5, dB/voxel",
        "data:image/jpeg;base64,/9j/4AAQSkZJRg==",
        "sub-01/func/x.nii.gz, ./a/b, ../a/b",
        "a { color: rgb(0 0 0 / 50%) } /* a/b */ @media print {}",
        "const x = a / b; // half/whole",
        r"\alpha\beta, sub-01\func",
        "mail me at home, name@host",
    ],
)
def test_texts_that_are_neither_path_nor_address(text, tmp_path):
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "a.md").write_text(text)
    assert found(tmp_path) == []


def test_names_of_this_machine_and_its_user(tmp_path):
    (tmp_path / "a.txt").write_text("by JDOE42 on neuro-pc7, in ./home/jdoe42/y; not ajdoe42, neuro-pc77")
    kind = "name of this machine or user"
    assert found(tmp_path) == [("a.txt", kind, what) for what in ("JDOE42", "neuro-pc7", "/home/jdoe42")]


def test_short_and_common_names_are_not_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "mri")
    monkeypatch.setattr(privacy, "getpass", SimpleNamespace(getuser=lambda: "root"))
    monkeypatch.setenv("HOME", "/root")
    (tmp_path / "a.txt").write_text("the root of an mri study, localhost")
    assert found(tmp_path) == []


def test_addresses(tmp_path):
    (tmp_path / "CHANGES").write_text("0.1 by Some One <some.one@uni.example.org>")
    assert found(tmp_path) == [("CHANGES", "e-mail address", "some.one@uni.example.org")]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", '{"PatientName": "DOE^JOHN", "PatientID": "", "PatientSex": "F"}', "PatientName: DOE^JOHN"),
        ("a.json", '{"OtherPatientIDs": [\n "12", "13"], "StudyID": null}', "OtherPatientIDs: 12"),
        ("a.json", '{"PatientName": {"Alphabetic": "Doe"}, "StationName": []}', "PatientName: Doe"),
        ("a.yaml", "PatientBirthDate:\nStationName: MR1\n", "StationName: MR1"),
        ("a.html", "<pre>&#34;InstitutionName&#34;: &#34;A clinic&#34;</pre>", "InstitutionName: A clinic"),
        ("a.tsv", "age\tAccessionNumber\n70\tn/a\n71\t17\n", "AccessionNumber: 17"),
    ],
)
def test_dicom_identifiers(name, text, what, tmp_path):
    (tmp_path / name).write_text(text)
    assert found(tmp_path) == [(name, "DICOM identifier", what)]


def test_formulas_of_tables(tmp_path):
    (tmp_path / "a.tsv").write_text('site\tvalue\n=HYPERLINK("x")\t-1.5\n@SUM(A1)\t+3e-5\n-1+cmd|x\t-inf\n')
    (tmp_path / "b.csv").write_text('site,value\n"=1+1",-0.3 [-0.5; 0.1]\n-,+\n')
    assert found(tmp_path) == [
        ("a.tsv", "spreadsheet formula", '=HYPERLINK("x")'),
        ("a.tsv", "spreadsheet formula", "@SUM(A1)"),
        ("a.tsv", "spreadsheet formula", "-1+cmd|x"),
        ("b.csv", "spreadsheet formula", "=1+1"),
    ]


def image(kind=nib.Nifti1Image):
    return kind(np.zeros((2, 2, 2), np.int16), np.eye(4))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_texts_of_nifti_headers(kind, suffix, tmp_path):
    made = image(kind)
    made.header["descrip"], made.header["aux_file"] = b"DOE^JOHN", b"/home/x/a.mat"
    made.header["intent_name"] = b"a@b.example"
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b'{"PatientID": "7"} DOE^JANE \x01/mnt/x/y'))
    nib.save(made, tmp_path / f"a{suffix}")
    texts = [(what, kind) for _, kind, what in found(tmp_path)]
    assert sorted(texts) == [
        ("/home/x/a.mat", "absolute path"),
        ("/mnt/x/y", "absolute path"),
        ("DOE^JANE", "DICOM identifier"),
        ("DOE^JOHN", "DICOM identifier"),
        ("PatientID: 7", "DICOM identifier"),
        ("a@b.example", "e-mail address"),
    ]


def test_a_database_name_and_a_dicom_extension(tmp_path):
    made = image()
    made.header["db_name"] = b"/data/db"
    raw = b"\x10\x00\x10\x00LO\x02\x0017"
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x"))
    nib.save(made, tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content[:352] + struct.pack("<ii", 16, 2) + raw[:8] + content[368:])
    assert found(tmp_path) == [
        ("a.nii", "DICOM identifier", "a DICOM header as an extension of the NIfTI header"),
        ("a.nii", "absolute path", "/data/db"),
    ]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_texts_of_png_images(tmp_path):
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"Source\0/home/x/a.py")
    content += chunk(b"zTXt", b"Author\0\0" + zlib.compress(b"a@b.example"))
    content += chunk(b"iTXt", b"Title\0\0\0en\0Titel\0in /tmp/b") + chunk(b"IDAT", b" /mnt/none ") + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert found(tmp_path) == [
        ("a.png", "e-mail address", "a@b.example"),
        ("a.png", "absolute path", "/home/x/a.py"),
        ("a.png", "absolute path", "/tmp/b"),
    ]


def test_metadata_of_safetensors(tmp_path):
    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors", {"made_from": "/scratch/x", "format": "pt"})
    assert found(tmp_path) == [("a.safetensors", "absolute path", "/scratch/x")]


def test_names_of_files_and_folders(tmp_path):
    folder = tmp_path / "jdoe42" / "sub-01"
    folder.mkdir(parents=True)
    (folder / "a@b.example").write_bytes(b"")
    assert found(tmp_path) == [
        ("jdoe42/sub-01/a@b.example", "name of this machine or user", "jdoe42"),
        ("jdoe42/sub-01/a@b.example", "e-mail address", "a@b.example"),
    ]


def test_links_are_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("/home/someone/x")
    (tmp_path / "out" / "near").symlink_to("../elsewhere")
    (tmp_path / "out" / "far.txt").symlink_to("/data/far/a.txt")
    assert found(tmp_path / "out") == [("far.txt", "absolute path", "/data/far/a.txt")]


def test_an_unreadable_file_is_a_finding(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"short")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(os.urandom(4000))[:300])
    (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    (tmp_path / "d.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "e")  # must not be waited for
    (tmp_path / "f.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    seen = findings(tmp_path)
    assert {each.kind for each in seen} == {Kind.UNREADABLE}
    assert [each.file for each in seen] == ["a.nii", "b.nii.gz", "c.safetensors", "d.png", "e", "f.safetensors"]
    assert seen[0] == Finding("a.nii", Kind.UNREADABLE, "is not a NIfTI image")
    with pytest.raises(InputError, match="is not a folder"):
        findings(tmp_path / "a.nii")


def test_text_in_other_encodings_and_files_without_text(tmp_path):
    (tmp_path / "a.tsv").write_text("path\n/home/someone/x\n", encoding="utf-16")
    (tmp_path / "b.txt").write_bytes(b"\xff\xe9 /home/someone/y")
    np.save(tmp_path / "c.npy", np.zeros(4))
    (tmp_path / "d.bin").write_bytes(b"\0 /home/someone/z")
    assert [(file, what) for file, _, what in found(tmp_path)] == [
        ("a.tsv", "/home/someone/x"),
        ("b.txt", "/home/someone/y"),
    ]


@pytest.fixture(scope="module")
def results(prepared, tmp_path_factory):
    """The output of `evaluate` and `report`, with a synthesised scan in the same folder."""
    out = tmp_path_factory.mktemp("results")
    average = PopulationMean(MethodConfig(prepared.grid.shape))
    average.fit(prepared.split("train"), torch.Generator())
    evaluate({"mean": average, "copy": CopySource(MethodConfig(prepared.grid.shape))}, prepared.split("test"), out)
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, ["sub-09_task-rest_bold.nii.gz"], "0" * 64, 0, "1.0")
    folder = out / "synthesised" / "sub-09" / "dwi"
    folder.mkdir(parents=True)
    volume = Volume(prepared.volume(Direction.FMRI_TO_DMRI.source, 0), prepared.grid.affine)
    write_synthetic(volume, folder / "sub-09_task-rest_desc-synthetic_dwiref.nii.gz", mark)
    (out / "manifest.json").write_text(json.dumps({"version": "1.0", "command": "evaluate", "seed": 7}))
    write_cards(out)
    write_report(out)
    return out


def test_output_of_pdsynth_has_no_findings(results):
    names = {path.name for path in files(results)}
    assert names >= {"report.html", "metrics.json", "metrics.tsv", "model_card.md"}
    assert found(results) == []


def test_the_command_counts_its_findings(results, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--privacy", str(results)])
    assert ended.value.code == 0
    assert f"found in {len(files(results))} files" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "a.json").write_text('{"root": "/home/someone/x", "PatientID": "7"}')
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--privacy", str(tmp_path)])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "absolute path" in said.out and "/home/someone/x" in said.out and "PatientID: 7" in said.out
    assert said.err.count("\n") == 1 and "holds 2 findings" in said.err and "before you share the folder" in said.err
