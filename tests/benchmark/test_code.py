"""The digest of the code that a result comes from."""

from __future__ import annotations

import importlib
import sys

import pytest

from pdsynth.benchmark.code import _reached, code_digest

TWO = '''"""One."""
from pdsynth_probe.other import {name}
from json import dumps


def double(x: int) -> int:
    """Twice."""
    return 2 * {name}(x)
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, `first` and `other`, and a function that writes one of them and gives the digest."""
    root = tmp_path / "pdsynth_probe"
    root.mkdir()
    (root / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pdsynth.benchmark.code.PACKAGE", "pdsynth_probe")
    _forget()

    def digest(first: str = TWO.format(name="same"), other: str = "def same(x):\n    return x\n") -> str:
        (root / "first.py").write_text(first)
        (root / "other.py").write_text(other)
        importlib.invalidate_caches()
        code_digest.cache_clear()
        return code_digest("pdsynth_probe.first")

    yield digest
    code_digest.cache_clear()
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pdsynth_probe"]:
        del sys.modules[name]


def test_what_the_code_does_enters_and_what_it_says_does_not(package):
    plain = package()
    assert package() == plain
    assert package(TWO.format(name="same").replace("Twice.", "Two times.").replace("2 *", "2  *")) == plain
    assert package("# first\n" + TWO.format(name="same").replace('"""One."""', '"""A module.\n\nOf two."""')) == plain
    assert package(TWO.format(name="same").replace("2 *", "3 *")) != plain


def test_imported_code_enters(package):
    plain = package()
    assert package(other="def same(x):\n    return x + 0\n") != plain
    assert package(other='def same(x):\n    """x"""\n    return x\n') == plain
    assert package(TWO.format(name="same").replace("json", "math")) != plain  # as an import it is code of `first`


def test_one_method_does_not_depend_on_another():
    reached = _reached(["pdsynth.methods.gan", "pdsynth.training"])
    assert {"pdsynth.methods.gan", "pdsynth.methods.unet", "pdsynth.networks.haar", "pdsynth.training"} <= set(reached)
    assert not {"pdsynth.methods", "pdsynth.methods.pds", "pdsynth.cli"} & set(reached)
    assert code_digest("pdsynth.methods.gan") != code_digest("pdsynth.methods.unet")


def test_a_recipe_is_no_code(package):
    """Its settings are in a run's key, so that another recipe in the same file makes no other run anew."""
    plain = package()
    recipes = "\n\ndef recipes():\n    from pdsynth_probe.third import nothing\n\n    yield 1\n"
    assert package(TWO.format(name="same") + recipes) == plain
    assert package(TWO.format(name="same") + recipes.replace("recipes", "runs").replace("third", "other")) != plain


def test_what_is_discovered_is_not_followed():
    """The registry finds all methods; the code of a run holds its own method's only."""
    reached = set(_reached(["pdsynth.training", "pdsynth.evaluation.evaluate", "pdsynth.methods.unet"]))
    methods = {name.removeprefix("pdsynth.methods.") for name in reached if name.startswith("pdsynth.methods.")}
    known = {"base", "checkpoint", "conditioning", "controls", "correction", "detail", "recipe", "trees", "unet"}
    assert methods == known
    assert "pdsynth.recipes" not in reached
    assert "pdsynth.progress" not in reached and "pdsynth.workers" in reached  # what is shown is no result


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"there is no module 'pdsynth\.methods\.nothing'"):
        code_digest("pdsynth.methods.nothing")
