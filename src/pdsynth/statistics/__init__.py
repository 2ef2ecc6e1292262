"""Statistics of groups of participants: resampling, tests, agreement, contrasts, classification. No file is read."""
