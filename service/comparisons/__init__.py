"""Searches that ask the same question, side by side: which sampler has found more, after as many trials or as long."""
