"""Cost tables in the formats that others have published, read as plain data. Knows no database and no web.

A row is a figure of a workload in base units; what a file does not say has to be given by whoever hands it over.
"""
