"""The embedded data: simulated ECGs with known findings, and a corpus drawn by a published generator."""

from data_provider.simulate.generated import generate
from data_provider.simulate.write import simulate

__all__ = ["generate", "simulate"]
