"""Corrections: usage that is taken back, each event at most once.

`reversing` takes events back; `recalls` does so for every event of a model's version.
"""
