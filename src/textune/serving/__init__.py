"""Using a finished classifier."""
