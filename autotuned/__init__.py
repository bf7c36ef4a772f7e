"""The agent: finds the biggest model that this machine can usefully serve, by measuring."""

__version__ = "0.2.0"
