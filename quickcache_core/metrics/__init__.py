"""Counting what happened, and telling it to programs and people."""
