"""Tuning without anybody there: staleness, the schedule, and who is told."""
