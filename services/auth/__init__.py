"""The auth service: users, machine clients, tokens and signing keys."""
