"""Small tokenizers and ECGs for tests."""

import dataclasses
import json

import numpy as np
import torch

from ecg_tokenizer.codec import EcgTokenizer
from ecg_tokenizer.network import NetworkConfig, build_network
from tests.wfdb_maker import write_record

SMALL = NetworkConfig(codes_per_ecg=50, width=16, encoder_depth=1, decoder_depth=1)
WITH_AMPLITUDE = dataclasses.replace(SMALL, amplitude=True)


def small_tokenizer(seed=0, config=SMALL):
    """An untrained tokenizer whose codes nevertheless vary."""
    torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        network.to_code.weight.mul_(5)
    return EcgTokenizer(network, config)


def beats(samples=5000, rate_bpm=70, seed=0):
    """Int16 [12, samples] of something with beats: narrow bumps whose height differs from lead to lead."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 500
    phase = (t * rate_bpm / 60 + rng.random()) % 1 - 0.5
    wave = np.exp(-((phase / 0.03) ** 2)) + 0.25 * np.exp(-(((phase - 0.3) / 0.08) ** 2))
    heights = rng.uniform(-1.5, 1.5, 12)
    return np.round(1000 * heights[:, None] * wave + 10 * rng.standard_normal((12, samples))).astype("<i2")


def write_data_set(folder, train=6, valid=2):
    """Records and their manifests; returns the KEY=VALUE words that name them."""
    words = [f"ROOT_ECG={folder / 'files'}"]
    for split, count, first in (("train", train, 0), ("valid", valid, 100)):
        items = []
        for number in range(first, first + count):
            write_record(folder / "files" / f"r{number}", beats(rate_bpm=60 + number % 40, seed=number))
            items.append({"patient_id": number, "ecg_id": number, "report": "beats", "filepath": f"r{number}"})
        (folder / f"{split}.json").write_text(json.dumps(items))
        words.append(f"{'TRAIN' if split == 'train' else 'VAL'}_PATH={folder / split}.json")
    return words
