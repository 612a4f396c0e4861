"""The training engine: one loop and the pieces it is made of."""
