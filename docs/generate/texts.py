"""Changes of Markdown text that the site needs: links out of docs/, and doctests in docstrings."""

from __future__ import annotations

import posixpath
import re

BESIDE = "repository"  # folder of the site for the files that lie outside docs/
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s]+)")
DOCTEST = re.compile(r"(?:^>>> .*\n?)(?:^\S.*\n?)*", re.M)


def with_site_links(markdown: str, uri: str) -> str:
    """The text of a page whose links lead to places in the site. uri: of the page in the site.

    >>> with_site_links("[a](../benchmarks/README.md) [b](#c) [d](https://bids.neuroimaging.io)", "results.md")
    '[a](repository/benchmarks/README.md) [b](#c) [d](https://bids.neuroimaging.io)'
    """
    origin = uri.removeprefix(f"{BESIDE}/") if uri.startswith(f"{BESIDE}/") else f"docs/{uri}"
    return LINK.sub(lambda match: match[1] + site_link(match[2], origin, uri), markdown)


def site_link(link: str, origin: str, uri: str) -> str:
    """The link of a page, as it must be in the site.

    link: relative to the page in the repository. origin: the page in the repository. uri: the page in the site.

    >>> site_link("docs/results.md#the-demo", "CHANGELOG.md", "repository/CHANGELOG.md")
    '../results.md#the-demo'
    >>> site_link("../files.md", "docs/how-to/a.md", "how-to/a.md")
    '../files.md'
    """
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    target = target.removeprefix("docs/") if target.startswith("docs/") else f"{BESIDE}/{target}"
    return posixpath.relpath(target, posixpath.dirname(uri) or ".")


def with_fenced_doctests(docstring: str) -> str:
    """A docstring with each doctest in a block of code, because ">" starts a quotation in Markdown.

    >>> with_fenced_doctests("One.\\n\\n>>> 1 + 1  # doctest: +SKIP\\n2")
    'One.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```\\n'
    """
    text = re.sub(r" *# doctest: .*", "", docstring)
    return DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)
