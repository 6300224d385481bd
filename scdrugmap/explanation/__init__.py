"""Which genes drive a prediction, how sure that is, and whether they differ between the classes."""
