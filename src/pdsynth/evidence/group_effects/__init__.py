"""Claim: if scans are missing, synthesised scans that are rectified with real ones make group differences more precise.

Rectified: the mean error of the synthesised scans is estimated on participants who have both scans, and subtracted.
"""
