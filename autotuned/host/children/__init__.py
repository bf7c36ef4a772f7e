"""Processes that the agent starts, and the supervisor that outlives it to end them."""
