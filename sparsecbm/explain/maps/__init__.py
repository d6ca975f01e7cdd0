"""Where in the picture: maps that add up to the lines of a ledger, over classes and under interventions."""
