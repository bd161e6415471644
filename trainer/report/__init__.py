"""Describe a training run: notes for the terminal, and `report.html`."""
