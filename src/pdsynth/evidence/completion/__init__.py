"""Claim: a classifier that needs both scans is more accurate if synthesised scans replace missing ones."""
