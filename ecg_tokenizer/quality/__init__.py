"""The codec's report: how well ECGs survive a tokenizer, and what its codes cost."""
