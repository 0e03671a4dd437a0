"""How well stage 1's network draws ECGs that it doesn't learn from, and how it uses its codes."""

from itertools import zip_longest

import torch

from ecg_tokenizer.network import LEADS, SAMPLES
from ecg_tokenizer.quantizers import code_use
from utils.sharing import gathered

VALIDATION_BATCH = 32


def reconstruct(network, x, dtype):
    """Signals through the codes: (reconstruction, codes, the quantiser's loss). The quantiser works in float32."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        z = network.encode(x)
    values, codes, loss = network.quantizer(z.float())
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return network.decode(values).float(), codes, loss


def validate(network, signals, device, dtype, rank=0, world=1):
    """Evaluate a network on ECGs, of which each process takes a share.

    Returns
    -------
    figures : dict
        mse, prdn (mean over the ECGs, %), usage and perplexity over all codes, codes_used.
    losses : float array
        PRDN in % of each ECG that has any signal.
    """
    network.eval()
    errors, counts = [], torch.zeros(network.quantizer.n_codes, dtype=torch.int64)
    with torch.no_grad():
        for start in range(rank * VALIDATION_BATCH, len(signals), world * VALIDATION_BATCH):
            x = torch.from_numpy(signals[start : start + VALIDATION_BATCH]).to(device)
            recon, codes, _ = reconstruct(network, x, dtype)
            errors.append(torch.stack([(recon - x).square().sum((1, 2)), x.square().sum((1, 2))]).double().cpu())
            counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
    network.train()
    shares = gathered((errors, counts))
    counts = sum(part[1] for part in shares)
    in_order = [part for batches in zip_longest(*(part[0] for part in shares)) for part in batches if part is not None]
    error, power = torch.cat(in_order, dim=1)
    usage, perplexity = code_use(counts)
    losses = 100 * (error / power.clamp(min=1e-9)).sqrt()[power > 0]
    figures = {
        "mse": (error.sum() / (len(signals) * LEADS * SAMPLES)).item(),
        "prdn": losses.mean().item(),
        "usage": usage,
        "codes_used": int((counts > 0).sum()),
        "perplexity": perplexity,
    }
    return figures, losses.numpy()


def figures_text(figures, n_codes):
    """The figures of a validation in a line."""
    return (
        f"PRDN {figures['prdn']:.1f} % on the validation ECGs, {figures['codes_used']} of {n_codes} codes used "
        f"({100 * figures['usage']:.0f} %), perplexity {figures['perplexity']:.0f}"
    )
