"""Read a model's data: files, their schema, a typed table, and the problem to learn."""
