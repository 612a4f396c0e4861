"""From a finished run to something to read."""
