"""Text models: cells as questions, and what a language model answers."""
