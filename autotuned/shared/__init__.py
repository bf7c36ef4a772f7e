"""What both programs may know: standard library only."""
