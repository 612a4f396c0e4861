"""Pretrained encoders as classifiers: finding, checking, loading and saving them."""
