"""Read finished models of other tools, and turn them into versions of Tollgate."""
