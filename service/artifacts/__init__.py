"""Artifacts: files handed out."""
