"""Searches: what a user asked for, and its life."""
