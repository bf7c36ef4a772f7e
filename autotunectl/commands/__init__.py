"""The commands, one file a feature: each parses its words, makes one call and renders the answer."""
