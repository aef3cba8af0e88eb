"""Files: written whole or not at all, read within bounds, known by their content."""
