"""Exports: requests for files."""
