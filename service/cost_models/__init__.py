"""Cost models: versions with their errors, and what is left between what they said and what was measured."""
