"""Tables, pictures and pages from the result files."""
