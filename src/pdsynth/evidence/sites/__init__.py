"""Claim: a model keeps its quality at a site that was not in the training set."""
