"""Refinements: chosen designs that are trained on for long, once a search is over."""
