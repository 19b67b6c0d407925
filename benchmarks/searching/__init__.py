"""Searches replayed on recorded tables: what `benchmarks.record_table` writes and `benchmarks.search` plays on."""
