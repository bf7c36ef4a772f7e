"""The commands, one file a noun: each parses its words, makes one call and renders the answer."""
