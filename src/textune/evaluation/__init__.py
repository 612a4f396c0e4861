"""From a model to predictions, metrics and what they mean."""
