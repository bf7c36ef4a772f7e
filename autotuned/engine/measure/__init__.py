"""One trial: a candidate started, measured and stopped."""
