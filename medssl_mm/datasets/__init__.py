"""Slice store, importers, splits, data sets and transforms."""
