"""Training data that ships with the repository, and readers of the user's own."""
