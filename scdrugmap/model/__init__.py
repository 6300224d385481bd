"""The one loop that runs every model."""
