"""Models of accelerators in closed form: what a network takes on hardware that is not at hand."""
