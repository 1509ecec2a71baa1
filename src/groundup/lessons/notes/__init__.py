"""Rungs of the notes' chapter on preferences, which the book has no chapter for; the order is in `lessons.ladder`."""
