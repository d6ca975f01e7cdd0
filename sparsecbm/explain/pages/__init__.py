"""Self-contained HTML pages: the report of a model, and the page of a search."""
