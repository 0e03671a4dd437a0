"""The codec's report: how well ECGs survive a tokenizer, and what its codes cost."""

from ecg_tokenizer.quality.measures import signal_errors

__all__ = ["signal_errors"]
