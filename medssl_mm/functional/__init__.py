"""Losses, statistics and collectives in plain torch and numpy."""
