"""The report's figures, each with its data beside it."""
