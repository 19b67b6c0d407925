"""The design-independent descriptions of network families."""
