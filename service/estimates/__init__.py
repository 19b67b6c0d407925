"""Estimates: what designs cost, told now, without a search."""
