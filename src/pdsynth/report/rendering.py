"""Writes a file from a template of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pdsynth.files import write_text


def render(path: Path, template: str, escape: bool, context: dict[str, Any]) -> Path:
    """Fill a template of this package with `context` and write it to `path`, completely or not at all; returns `path`.

    template: file name in `templates`. escape: whether values are escaped for HTML. context: values by the names that
    the template uses; a missing one raises jinja2.UndefinedError.
    """
    environment = Environment(
        loader=PackageLoader("pdsynth.report", "templates"),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    write_text(path, environment.get_template(template).render(**context))
    return path
