"""Kill the platform's processes at random under load, and see that the money still adds up."""
