"""Judge the chosen model on the held-out rows, against the baseline and the live version."""
