"""Ingest of usage events.

`batch` parses a delivery; `deciding` decides what it changes, with `rating` for what its events
cost and `settling` for the credit they were spent from, all without a database or a clock;
`service` loads what these need and writes what they decide.
"""
