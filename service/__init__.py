"""Who asked and what came out: HTTP, database, web pages, client commands."""
