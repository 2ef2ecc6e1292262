"""The page and the pictures that the program makes and that lie in docs/, because a clone is read without a build.

`make pages` makes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pictures
import plan_page
import runs

DOCS = Path(__file__).parents[1]
TUTORIAL = "tutorial.md"


def drawn() -> dict[str, bytes]:
    """The pictures of the tutorial, whose commands are run, and of the simulator, by their place in docs/."""
    _, run = runs.with_outputs((DOCS / TUTORIAL).read_text(), "tutorial")
    return {uri: draw(run) for uri, draw in pictures.TUTORIAL.items()} | pictures.simulator()


if __name__ == "__main__":
    (DOCS / plan_page.URI).write_text(plan_page.page())
    for uri, picture in drawn().items():
        (DOCS / uri).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / uri).write_bytes(picture)
