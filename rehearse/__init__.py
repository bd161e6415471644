"""The whole loop rehearsed on one machine: `make rehearse`."""
