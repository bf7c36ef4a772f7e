"""What is done with a recommendation: written, taken back, set against another."""
