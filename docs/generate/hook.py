"""The hook of `mkdocs build`: it adds pages and pictures that are made from the program, and files beside the docs.

Links in the pages are written for the repository. A link to a file outside docs/ leads to a copy in the site.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import command_page
import committed
import gallery_page
import notebook_page
import recipe_page
import runs
from texts import BESIDE, with_site_links

ROOT = Path(__file__).parents[2]
COPIED = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"),
    *("benchmarks/README.md", "benchmarks/results/*.json", "examples/*"),
)
GENERATED: dict[str, Callable[[], str]] = {
    module.URI: module.page for module in (command_page, recipe_page, gallery_page, notebook_page)
}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and pictures, and copies of the files of the repository that pages link to."""
    for uri, page in GENERATED.items():
        files.remove(files.get_file_from_path(uri))  # the words that stand there in the repository
        files.append(File.generated(config, uri, content=page()))
    files.append(File.generated(config, notebook_page.DOWNLOAD, content=notebook_page.download()))
    for uri, picture in (committed.drawn() if runs.RUNS else {}).items():
        files.remove(files.get_file_from_path(uri))  # the one of the last `make pages`
        files.append(File.generated(config, uri, content=picture))
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            uri = f"{BESIDE}/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Add the outputs of the tutorial's commands, and make the links of a page lead to places in the site."""
    if page.file.src_uri == committed.TUTORIAL:
        markdown, _ = runs.with_outputs(markdown, "tutorial")
    return with_site_links(markdown, page.file.src_uri)
