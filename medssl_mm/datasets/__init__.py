"""Data sets of stores, samplers and transforms."""
