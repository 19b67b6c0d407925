"""Measurements: what workloads take on devices, and where each figure comes from."""
