"""Train a model: data → candidates → gate → signed version → release."""
