"""The request of `start`: every field is validated once, here, and nowhere else.

Raises ConfigError that names the field, the value and the rule. Pure.
"""
