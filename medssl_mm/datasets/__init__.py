"""Slice store, image set, importers, splits, data sets and transforms."""
