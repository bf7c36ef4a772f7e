"""What is shown to a person, one file a noun. Text made of documents: no calls, no files."""
