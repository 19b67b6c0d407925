"""Health: whether the service works."""
