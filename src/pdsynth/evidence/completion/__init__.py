"""Claim: a classifier that needs both scans is served by synthesised ones where a scan is missing."""
