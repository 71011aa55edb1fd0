"""One cell of the grid: its settings, its problem, its measurements."""
