"""The version of a converted network: its folder, card, costs, and how it is called."""
