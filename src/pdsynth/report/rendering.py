"""Writes a file from a template of this package."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pdsynth.files import write_text
from pdsynth.outcomes import LEAST_ROUND_TRIP, REPAIR
from pdsynth.types import counted


def render(
    path: Path, template: str, escape: bool, context: Mapping[str, Any], replaced: Mapping[str, str] | None = None
) -> Path:
    """Fill a template of this package with `context` and write it to `path`, completely or not at all; returns `path`.

    template: file name in `templates`. escape: whether values are escaped for HTML. context: values by the names that
    the template uses; a missing one raises jinja2.UndefinedError. replaced: texts of the finished file, each with the
    text that takes its place. Of two such texts of which one holds the other, the longer is replaced.
    """
    text = fill(template, escape, context)
    for old, new in sorted((replaced or {}).items(), key=lambda pair: -len(pair[0])):
        text = text.replace(old, new)
    write_text(path, text)
    return path


def fill(template: str, escape: bool, context: Mapping[str, Any], package: str = "pdsynth.report") -> str:
    """A template, filled with `context`, as text.

    package: that of the template; its templates can include those of the report. escape and context as in `render`.
    """
    packages = dict.fromkeys((package, "pdsynth.report"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in packages]),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"counted": counted, "least_round_trip": LEAST_ROUND_TRIP, "repair": REPAIR}
    return environment.get_template(template).render(**context)


def scripts(*names: str) -> dict[str, Markup]:
    """The scripts of a page, from files in `templates`, as values for its template.

    script: the text of all files. policy: a Content-Security-Policy under which the page runs this script only, and
    loads nothing.
    """
    folder = files("pdsynth.report") / "templates"
    script = "".join((folder / name).read_text("utf-8") for name in names)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    sources = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return {"script": Markup(script), "policy": Markup("; ".join(sources))}
