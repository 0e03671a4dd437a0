"""The ECG codec: a trained tokenizer that turns ECGs into codes and codes into ECGs.

>>> tokenizer = EcgTokenizer.from_pretrained("ecg_tokenizer/result_tokenzier")      # doctest: +SKIP
>>> codes = tokenizer.encode(signal_mV, sample_rate=500)                            # [313], each below 1296
>>> signal = tokenizer.decode(codes)                                                # [12, 5000], standardised
"""

import dataclasses

import numpy as np

from data_provider.leads import LEADS, choose_leads, complete_leads
from data_provider.records import Record, RecordError
from data_provider.signal import SignalPolicy, fit_signal, standardise
from ecg_tokenizer import weights
from ecg_tokenizer.weights import tokenizer_fingerprint
from utils.tools import UserError

__all__ = ["EcgTokenizer", "tokenizer_fingerprint"]


class EcgTokenizer:
    """A trained tokenizer. Codes are always computed in float32.

    Attributes
    ----------
    config : NetworkConfig
    n_codes : int
        Size of the codebook.
    codes_per_ecg : int
    fingerprint : str
        Hash of config and weights, equal to `tokenizer_fingerprint` of the files it came from.
    """

    def __init__(self, network, config, stored_config=None):
        self.network = network.eval().requires_grad_(False).float()
        self.config = config
        self.n_codes = network.quantizer.n_codes
        self.codes_per_ecg = config.codes_per_ecg * config.residual_depth
        self._stored_config = stored_config or config_to_json(config)
        arrays = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        self.fingerprint = weights.fingerprint(self._stored_config, arrays)

    @property
    def device(self):
        return next(self.network.parameters()).device

    @classmethod
    def from_pretrained(cls, path, device="cpu"):
        """Load a tokenizer's folder, our best.pt, or the authors' best.pt; a `UserError` says what is wrong with it."""
        from ecg_tokenizer.network import build_network

        stored, state = weights.read_tokenizer(path)
        config = config_from_json(stored, path)
        try:
            network = build_network(config)
            network.load_state_dict(state)
        except (RuntimeError, ValueError, TypeError, ZeroDivisionError, AssertionError) as error:
            first = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: the weights do not fit the {config.architecture} network ({first})") from error
        return cls(network.to(device), config, stored)

    def save(self, folder):
        """Write config.json and model.safetensors."""
        weights.write_folder(folder, self._stored_config, self.network.state_dict())

    def encode_standardised(self, x):
        """Codes int64 [B, F] of standardised signals, float32 tensor [B, 12, 5000]."""
        import torch

        x = torch.as_tensor(x).to(self.device, torch.float32)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.network.quantizer(self.network.encode(x))[1]

    def decode_standardised(self, codes):
        """Standardised signals, float32 tensor [B, 12, 5000], of codes [B, F]."""
        import torch

        codes = torch.as_tensor(codes).to(self.device, torch.int64)
        if codes.ndim != 2 or codes.shape[1] != self.codes_per_ecg:
            raise ValueError(f"codes have the shape {tuple(codes.shape)}, [B, {self.codes_per_ecg}] is expected")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.n_codes:
            raise ValueError(f"codes must lie in 0..{self.n_codes - 1}")
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.network.decode(self.network.quantizer.from_codes(codes))

    def encode(self, signal, sample_rate, leads=LEADS, policy=None):
        """Codes of ECGs in millivolts.

        Parameters
        ----------
        signal : array [leads, T] or [B, leads, T]
            mV.
        sample_rate : float
            Hz.
        leads : sequence of str
            The rows' names, in any order; missing limb leads are derived from two others.
        policy : SignalPolicy, optional
            How longer, shorter and broken signals are treated.

        Returns
        -------
        codes : uint16 array [F] or [B, F]
        """
        signal = np.asarray(signal, dtype=np.float64)
        if signal.ndim not in (2, 3) or signal.shape[-2] != len(leads):
            raise ValueError(f"the signal has the shape {signal.shape}, [{len(leads)} leads, T] or a batch is expected")
        batch = signal if signal.ndim == 3 else signal[None]
        x = np.stack([_prepare(one, sample_rate, leads, policy or SignalPolicy()) for one in batch])
        codes = self.encode_standardised(x).cpu().numpy().astype(np.uint16)
        return codes if signal.ndim == 3 else codes[0]

    def decode(self, codes):
        """Signals of codes [F] or [B, F], float32 [12, 5000] or [B, 12, 5000], each lead in its standard deviations."""
        codes = np.asarray(codes, dtype=np.int64)
        x = self.decode_standardised(np.atleast_2d(codes)).cpu().numpy()
        return x if codes.ndim == 2 else x[0]


def _prepare(signal, sample_rate, leads, policy):
    try:
        twelve, _ = complete_leads(signal, choose_leads(leads))
    except ValueError as error:
        raise RecordError("signal", str(error)) from error
    return standardise(fit_signal(Record(twelve, sample_rate, (), "signal"), policy))[0]


def config_to_json(config):
    """A `NetworkConfig` as the dict that is saved."""
    return {**dataclasses.asdict(config), "levels": list(config.levels)}


def config_from_json(stored, path):
    """A `NetworkConfig` from a saved dict; ``path`` is for the error's text."""
    from ecg_tokenizer.network import NetworkConfig

    known = {field.name: field for field in dataclasses.fields(NetworkConfig)}
    unknown = sorted(set(stored) - set(known)) if isinstance(stored, dict) else ["(not an object)"]
    if unknown:
        raise UserError(f"{path}: the tokenizer's config has {unknown[0]}, which this version does not know")
    values = dict(stored)
    if isinstance(values.get("levels"), list):
        values["levels"] = tuple(values["levels"])
    for name, value in values.items():
        wanted = known[name].type
        numbers = value if wanted is tuple else (value,) if wanted is int else ()
        if not isinstance(value, wanted) or not all(isinstance(n, int) and 1 <= n <= 65536 for n in numbers):
            raise UserError(f"{path}: the tokenizer's config has {name}={value!r}")
    return NetworkConfig(**values)
