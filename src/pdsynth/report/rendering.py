"""From a template of this package to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pdsynth.files import write_text


def render(path: Path, template: str, escape: bool, context: dict[str, Any]) -> Path:
    """Fill a template, escaping for HTML where asked, and write it to `path`, whole or not at all; returns the path."""
    environment = Environment(
        loader=PackageLoader("pdsynth.report", "templates"),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    write_text(path, environment.get_template(template).render(**context))
    return path
