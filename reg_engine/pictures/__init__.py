"""Samples as images, and figures as plots."""
