"""gatort: a real-time robot control runtime for Gato-style policies."""

__version__ = "0.1.0"
