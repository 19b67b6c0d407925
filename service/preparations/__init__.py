"""Preparations: getting a search's base ready."""
