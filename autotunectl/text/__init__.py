"""What each feature shows to a person, one file a feature. Text made of documents: no calls, no files."""
