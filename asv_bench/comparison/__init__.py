"""tamt beside the libraries people use today: one table per operation, each figure after a check of the numbers."""
