"""The functional API: one module per operation."""
