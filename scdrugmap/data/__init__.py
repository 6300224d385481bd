"""Read cells, genes and labels from files."""
