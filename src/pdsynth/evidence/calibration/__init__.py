"""Claim: intervals from a model's SD have their nominal coverage, after the SD was scaled on unseen participants."""
