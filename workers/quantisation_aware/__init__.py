"""Training through the rounding of weights and activations, so that the file computes what was trained."""
