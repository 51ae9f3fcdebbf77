"""What the numbers of a network mean: text, features, labels, and a user's own examples."""
