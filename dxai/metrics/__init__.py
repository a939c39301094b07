"""Scores of attributions."""
