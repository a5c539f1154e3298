"""Where items come from: files, tables and queries, read one item after the other."""
