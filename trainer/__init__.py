"""Data → candidates → gate → signed version → release."""
