"""One self-contained HTML page from result files."""

from pdsynth.report.page import write_report

__all__ = ["write_report"]
