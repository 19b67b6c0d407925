"""Networks: the families of the catalog, and those that users have imported."""
