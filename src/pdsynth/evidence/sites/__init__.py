"""Claim: a model keeps its quality at a site that it never saw."""
