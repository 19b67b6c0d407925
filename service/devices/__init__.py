"""Devices: what workers announced."""
