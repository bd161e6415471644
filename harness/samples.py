"""The request to the sample model that every new installation trains."""

WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
"""One row of its input."""
PREDICT = "/v1/models/wine:predict"
"""Where to send it."""
