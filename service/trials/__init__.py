"""Trials: designs being tried."""
