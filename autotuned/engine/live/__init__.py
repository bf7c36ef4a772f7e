"""The operator's live provider: found, drained, and brought back."""
