"""Self-contained HTML pages from result files and from prepared folders."""

from pdsynth.report.cards import write_cards
from pdsynth.report.page import write_report
from pdsynth.report.quality import write_quality

__all__ = ["write_cards", "write_quality", "write_report"]
