"""Corrupt and hostile files for every reader of textune: each ends in a value or in one of textune's own errors."""
