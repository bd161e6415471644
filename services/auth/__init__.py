"""Who is calling: accounts, machine clients, tokens, signing keys."""
