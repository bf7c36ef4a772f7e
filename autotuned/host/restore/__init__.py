"""Bringing a live server back: the journal of what is owed, and whoever pays it."""
