"""Splits, metrics and comparisons."""
