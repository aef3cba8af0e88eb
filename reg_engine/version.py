"""The package's version, which what it writes and what it resumes know."""

__version__ = "0.1.0"
