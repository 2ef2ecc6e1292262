"""Claim: synthesised scans, rectified by real ones, sharpen the difference between groups where scans are missing."""
