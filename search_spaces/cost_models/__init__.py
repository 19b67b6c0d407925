"""Cost models fitted to measurements: what a network takes on a device, without running it."""
