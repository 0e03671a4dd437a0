"""What a small residual network answers that is given the signals themselves: the yardstick's supervised rival.

One network for all yes/no questions of the training manifest, an output a question; an ECG that wasn't asked a question
says nothing of it. Twelve leads at 100 Hz and the logarithm of their amplitudes.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

PASSES, BATCH, RATE, DECAY = 30, 32, 2e-3, 0.05
SHIFT = 0.5  # s; the largest by which a training ECG is moved


class Block(nn.Module):
    """Two convolutions around which the input goes on, at half the rate."""

    def __init__(self, width_in, width):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(width_in, width, 7, 2, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(width, width, 7, 1, 3, bias=False), nn.BatchNorm1d(width))
        self.past = nn.Conv1d(width_in, width, 1, 2)

    def forward(self, x):
        return F.relu(self.second(self.first(x)) + self.past(x))


class Rival(nn.Module):
    """Signals [B, 12, T] and amplitudes [B, 12] to a score a question [B, Q]."""

    def __init__(self, questions, widths=(32, 48, 64, 96, 128)):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip((12, *widths), widths, strict=False)))
        self.out = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1] + 12, questions))

    def forward(self, x, scales):
        x = self.blocks(x)
        return self.out(torch.cat([x.mean(2), x.amax(2), scales], 1))


def rival_scores(questions, root, paths, seed=0):
    """text -> score of each test ECG (above 0 is yes) by a network trained on the training ECGs of all questions.

    Parameters
    ----------
    questions : dict
        Text -> `benchmarks.yardstick.Question`.
    root : Path
    paths : list of str
        The rows' records.
    """
    torch.manual_seed(seed)
    x, scales = read_signals(root, paths)
    labels = torch.full((len(paths), len(questions)), float("nan"))
    for column, question in enumerate(questions.values()):
        labels[question.rows["train"], column] = torch.from_numpy(question.yes["train"]).float()
    asked = (~labels.isnan()).any(1).nonzero().squeeze(1)
    network = train(Rival(len(questions)), x, scales, labels, asked)
    with torch.no_grad():
        scores = torch.cat([network(a, b) for a, b in zip(x.split(64), scales.split(64), strict=True)]).numpy()
    return {text: scores[question.rows["test"], column] for column, (text, question) in enumerate(questions.items())}


def read_signals(root, paths):
    """Standardised signals at 100 Hz, float32 [N, 12, 1000], and log amplitudes [N, 12]."""
    from scipy.signal import resample_poly

    from data_provider.read import SignalPolicy, fit_signal, read_record, standardise

    signals, scales = [], []
    for path in paths:
        x, _, std = standardise(fit_signal(read_record(Path(root) / path), SignalPolicy()))
        signals.append(resample_poly(x, 1, 5, axis=1).astype(np.float32))
        scales.append(np.log(np.maximum(std, 1e-3)).astype(np.float32))
    return torch.from_numpy(np.stack(signals)), torch.from_numpy(np.stack(scales))


def train(network, x, scales, labels, asked):
    """The network after `PASSES` over the ECGs ``asked``, ready to judge."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    steps = PASSES * -(-len(asked) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.train()
    for _ in range(PASSES):
        for chosen in asked[torch.randperm(len(asked))].split(BATCH):
            shift = int(torch.randint(-int(100 * SHIFT), int(100 * SHIFT) + 1, ()))
            logits, wanted = network(x[chosen].roll(shift, 2), scales[chosen]), labels[chosen]
            known = ~wanted.isnan()
            loss = F.binary_cross_entropy_with_logits(logits[known], wanted[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()
