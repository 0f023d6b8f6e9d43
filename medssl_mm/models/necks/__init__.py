"""Necks: from feature maps to embeddings."""
