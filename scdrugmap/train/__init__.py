"""Train heads and predictors, and apply them."""
