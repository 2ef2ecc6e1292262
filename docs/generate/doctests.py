"""An extension of griffe, which reads the docstrings for mkdocstrings: doctests become blocks of code."""

from __future__ import annotations

from typing import Any

import griffe

from texts import with_fenced_doctests


class FencedDoctests(griffe.Extension):
    """Puts the doctests of every docstring into blocks of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_fenced_doctests(obj.docstring.value)
