"""Stores of volumes and of images: format, readers, writers, splits."""
