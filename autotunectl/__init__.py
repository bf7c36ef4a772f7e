"""The thin client of the agent: parse, one call, render."""
