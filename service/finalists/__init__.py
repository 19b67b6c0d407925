"""Finalists: trials scored again on the split confirm."""
