"""A rehearsal of the whole pipeline on one machine: `make rehearse`."""
