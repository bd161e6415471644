"""Kill the platform's processes at random under load, then check that the money adds up."""
