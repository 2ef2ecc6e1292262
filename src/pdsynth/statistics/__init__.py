"""Statistics of groups of participants: resampling, tests, agreement, contrasts, classification. They know no file."""
