"""Build the explainer of a fitted model: exact for linear models and trees, sampled for others."""
