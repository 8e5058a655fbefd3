"""Saying what a file is, by its content alone, and laying it open."""
