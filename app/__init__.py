"""GrantServer: short-lived secrets in, Skupper links out."""

__version__ = "0.1.0"
