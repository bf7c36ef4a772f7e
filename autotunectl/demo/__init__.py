"""`demo`: three small models tuned with a real server on this machine."""
