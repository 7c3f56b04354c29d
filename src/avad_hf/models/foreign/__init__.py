"""Encoders of transformers that this library does not know: one adapter for all of them."""
