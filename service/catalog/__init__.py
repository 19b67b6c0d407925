"""Catalog: what a spec may name."""
