"""How things run: compiled loops, number formats, several processes."""
