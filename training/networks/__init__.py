"""Network classes of the recipes, and what is done to trained ones."""
