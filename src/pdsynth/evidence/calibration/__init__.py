"""Claim: intervals from a model's SD have their nominal coverage, after calibration on unseen participants."""
