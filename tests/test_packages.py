"""The package as it is installed: its dependencies, their licences, and the files that ship with it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pdsynth
from pdsynth.resources import resolve_device

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
FOR_USERS = ("denoise", "scale", "serve")
PACKAGE_OF = {  # an imported module, and the package that has it, where their names differ
    **{"sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml", "PIL": "pillow"},
    **{"lightning_fabric": "pytorch-lightning", "click": "typer"},
}
UNIMPORTED = {
    "einops": "MONAI imports it",
    "torchvision": "its file of weights is read",
}
# Licences by which a package may be used, changed and passed on with pdsynth's. MPL-2.0 binds only its own files.
ALLOWED = re.compile(
    r"\b(MIT|BSD|[0-9]-Clause|0BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla|HPND|Zlib|CC0|Unlicense)\b"
)
UNNAMED = "License :: OSI Approved"  # a classifier that names no licence
REFUSED = re.compile(r"\b(A?GPL|LGPL|General Public|Affero|SSPL|Non-?Commercial|CC-BY-NC|Proprietary)\b", re.IGNORECASE)


def imported() -> Iterator[tuple[str, Path]]:
    """Every module outside the standard library that a file of src imports, with the file."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in ("pdsynth", "__future__"):
                    yield top, path


def installed(requirements: list[Requirement]) -> dict[str, Distribution]:
    """The installed packages that these requirements bring, with those that they bring in turn, by name."""
    todo, seen, found = [(r.name, frozenset(r.extras)) for r in requirements], set(), {}
    while todo:
        name, extras = todo.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        try:
            found[canonicalize_name(name)] = package = distribution(name)
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        for requirement in map(Requirement, package.requires or []):
            environments = [{"extra": extra} for extra in ("", *extras)]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


def licence(package: Distribution) -> str:
    """Its licence by the expression, else by the classifiers, else by the first line of the text."""
    said = package.metadata
    classifiers = [text for text in said.get_all("Classifier") or [] if text.startswith("License ::")]
    first_line = (said.get("License") or "").strip().split("\n")[0]
    return said.get("License-Expression") or " AND ".join(text for text in classifiers if text != UNNAMED) or first_line


def test_each_imported_package_is_declared_and_each_declared_one_is_imported() -> None:
    declared = {r.name for r in [*CORE, *(r for name in (*FOR_USERS, "perceptual") for r in EXTRAS[name])]}
    packages = {PACKAGE_OF.get(name, name.replace("_", "-")) for name, _ in imported()}
    assert packages - declared - {"dask"} == set()  # distributed brings dask
    assert declared - packages == set(UNIMPORTED)


def test_each_dependency_has_a_lowest_version_and_the_lowest_are_tested() -> None:
    lines = (ROOT / "constraints-min.txt").read_text().splitlines()
    tested = {line for line in lines if not line.startswith("#")}
    lowest = {(r.name, s.version) for r in [*CORE, *EXTRAS["denoise"]] for s in r.specifier if s.operator == ">="}
    assert {name for name, _ in lowest} == {r.name for r in [*CORE, *EXTRAS["denoise"]]}
    assert tested == {f"{name}=={version}" for name, version in lowest}


def test_the_licences_of_all_dependencies_are_allowed() -> None:
    packages = installed([*CORE, *(r for name in FOR_USERS for r in EXTRAS[name])])
    assert {"torch", "numpy", "jinja2", "aiohttp"} <= packages.keys()
    licences = {name: licence(package) for name, package in packages.items() if not name.startswith("nvidia-")}
    refused = {name: text for name, text in licences.items() if REFUSED.search(text) or not ALLOWED.search(text)}
    assert refused == {}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("BSD-3-Clause", True),
        ("License :: OSI Approved :: MIT License", True),
        ("MPL-2.0 AND MIT", True),
        ("GNU General Public License v3", False),
        ("LGPL-3.0-or-later", False),
        ("MIT AND GPL-2.0-only", False),
        ("NVIDIA Proprietary Software", False),
        ("", False),
    ],
)
def test_a_licence_is_judged_by_its_words(text: str, allowed: bool) -> None:
    assert (bool(ALLOWED.search(text)) and not REFUSED.search(text)) is allowed


def test_the_lock_has_every_dependency_with_hashes_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    entry = r"^([\w.-]+)==(\S+)(?: ; [^\\\n]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    entries = re.findall(entry, text, re.MULTILINE)
    assert len(entries) == sum(not line.startswith((" ", "#")) for line in text.splitlines())
    locked: dict[str, list[str]] = {}
    for name, version in entries:  # a package may have a version for each Python
        locked.setdefault(canonicalize_name(name), []).append(version)
    assert not any(name == "torch" or name.startswith("nvidia") for name in locked)
    for requirement in CORE:
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert requirement.name == "torch" or versions, requirement
        assert all(map(requirement.specifier.contains, versions)), requirement


def test_every_file_that_ships_beside_the_code_is_in_the_notices() -> None:
    notices = (ROOT / "THIRD-PARTY-NOTICES").read_text()
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
    others = {str(Path(name).parent) for name in tracked.stdout.splitlines() if not name.endswith((".py", "py.typed"))}
    others.remove("src/pdsynth/serve/templates")  # it rests on the work of nobody else
    assert others == {"src/pdsynth/imaging", "src/pdsynth/models/default", "src/pdsynth/report/templates"}
    assert all(folder.removeprefix("src/") in notices for folder in others)
    assert PROJECT["license-files"] == ["LICENSE", "THIRD-PARTY-NOTICES"]


def test_the_citation_names_this_version_and_licence() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "CITATION.cff").read_text().splitlines() if ": " in line[:20])
    assert (lines["version"], lines["license"]) == (pdsynth.__version__, PROJECT["license"])


def test_an_apple_gpu_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"no device 'mps'. Choose auto, cpu or cuda"):
        resolve_device("mps")
