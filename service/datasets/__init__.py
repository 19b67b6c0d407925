"""Data sets: those that Espalier knows by itself, and those that users have added."""
