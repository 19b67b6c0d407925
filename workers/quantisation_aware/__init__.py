"""Training of weights and ranges for the integers that they will be rounded to, so that the file computes what was trained."""
