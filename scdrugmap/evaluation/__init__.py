"""Split labelled cells, score predictions, and say how sure the scores are."""
