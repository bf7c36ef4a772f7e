"""A run as one page for a browser: text made of documents, and nothing else."""
