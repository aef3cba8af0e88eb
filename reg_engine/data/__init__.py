"""Data sets as arrays, read from files of the caller."""
