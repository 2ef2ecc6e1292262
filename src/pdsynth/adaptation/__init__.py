"""Adapts a saved model to a new scanner in closed form, and judges the gain by people who were left out.

`paired` learns from people with both scans, `unpaired` from scans without a partner, and `adapt` saves the model.
"""

from pdsynth.adaptation.adapt import Adaptation, adapt

__all__ = ["Adaptation", "adapt"]
