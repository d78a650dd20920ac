"""Sparse, distilled, deployable BERT-class encoders."""

__version__ = "0.1.0"
