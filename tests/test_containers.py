"""The recipes of both containers name files and commands that exist, and install the same things."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import typer

from pdsynth.cli import app
from pdsynth.cli.bids_app import bids_app

ROOT = Path(__file__).parents[1]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
APPTAINER = (ROOT / "apptainer.def").read_text()


def tracked() -> set[str]:
    """The files that git tracks and the folders in which they are, relative to the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = listed.stdout.splitlines()
    return set(files) | {str(parent) for name in files for parent in Path(name).parents}


def copied() -> list[str]:
    """The files and folders that the build of the Docker image copies out of the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def section(name: str) -> list[str]:
    """The lines of a section of the definition for Apptainer."""
    (text,) = re.findall(rf"^%{name}\n((?:    .*\n|\n)+)", APPTAINER, re.MULTILINE)
    return [line.strip() for line in text.splitlines() if line.strip()]


def installs(text: str) -> list[str]:
    """The arguments of each `pip install`, with one name for the index of torch."""
    return [re.sub(r'"\$\w+"', "INDEX", words.strip()) for words in re.findall(r"pip install ([^&\n]+)", text) if words]


def test_every_copied_file_exists_and_is_sent_to_the_build() -> None:
    assert {"src", "pyproject.toml", "requirements.lock"} <= set(copied()) <= tracked()
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    assert all(any(fnmatch(name, pattern[1:]) for pattern in patterns if pattern[0] == "!") for name in copied())


def test_both_containers_have_the_same_files_and_packages() -> None:
    assert sorted(line.split()[0] for line in section("files")) == sorted(copied())
    assert installs(DOCKERFILE) == installs(APPTAINER)
    assert [line.split()[0] for line in installs(DOCKERFILE)] == ["-c", "--require-hashes", "--no-deps"]


def test_the_commands_of_both_containers_are_the_bids_app() -> None:
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[-1])
    assert entry == ["pdsynth", bids_app.__name__.replace("_", "-")]
    assert section("runscript") == [f'exec {shlex.join(entry)} "$@"']
    group = typer.main.get_command(app)
    verb = group.commands[entry[1]]  # type: ignore[attr-defined]
    context = verb.make_context(entry[1], ["in", "out", "participant", "--participant_label", "01", "02"])
    assert list(context.params["participant_label"]) == ["01", "02"]
    (check,) = section("test")
    program, name, *words = check.split()
    assert program == "pdsynth" and group.commands[name].make_context(name, words)  # type: ignore[attr-defined]


def test_a_build_without_an_index_for_torch_stops() -> None:
    for text in (DOCKERFILE, APPTAINER):
        (guard,) = re.findall(r': "(\$\{\w+:\?[^"]+\})"', text)
        name = re.findall(r"\w+", guard)[0]
        unset = subprocess.run(["bash", "-c", f': "{guard}"'], env={}, capture_output=True, text=True, check=False)
        assert unset.returncode != 0 and "docs/index.md" in unset.stderr
        given = subprocess.run(["bash", "-c", f': "{guard}"'], env={name: "x"}, capture_output=True, check=False)
        assert given.returncode == 0
