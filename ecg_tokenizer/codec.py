"""The ECG codec: a trained tokenizer that turns ECGs into codes and codes into ECGs.

>>> tokenizer = EcgTokenizer.from_pretrained()              # doctest: +SKIP
>>> codes = tokenizer.encode(signal_mV, sample_rate=500)    # [325]
>>> signal = tokenizer.decode(codes)                        # [12, 5000] mV

An ECG's codes are one row: first those of the twelve leads' amplitudes, if the tokenizer has any, each written as
``n_codes`` + level (`ecg_tokenizer.amplitude`), in the order of the leads; then those of the waveform, each below
``n_codes``.
"""

import contextlib
import dataclasses

import numpy as np

from data_provider.read import (
    LEADS,
    Record,
    RecordError,
    SignalPolicy,
    choose_leads,
    complete_leads,
    fit_signal,
    standardise,
)
from ecg_tokenizer import weights
from ecg_tokenizer.amplitude import SCALES, scale_levels, scales_of
from ecg_tokenizer.weights import tokenizer_fingerprint
from utils.tools import UserError

__all__ = ["EcgTokenizer", "tokenizer_fingerprint"]


class EcgTokenizer:
    """A trained tokenizer. Codes are always computed in float32.

    Attributes
    ----------
    config : NetworkConfig
    n_codes : int
        Size of the waveform's codebook.
    n_scales : int
        Levels of a lead's amplitude; 0 where the codes hold none.
    codes_per_ecg : int
        Of the waveform.
    row_length : int
        All codes of an ECG: ``codes_per_ecg``, and 12 more where they hold the amplitudes.
    fingerprint : str
        Equal to `tokenizer_fingerprint` of the files it came from.
    """

    def __init__(self, network, config, stored_config=None):
        self.network = network.eval().requires_grad_(False).float()
        self.config = config
        self.n_codes = network.quantizer.n_codes
        self.n_scales = SCALES if config.amplitude else 0
        self.codes_per_ecg = config.codes_per_ecg * config.residual_depth
        self.row_length = self.codes_per_ecg + (len(LEADS) if config.amplitude else 0)
        self._stored_config = stored_config or config_to_json(config)
        arrays = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        self.fingerprint = weights.fingerprint(self._stored_config, arrays)

    @property
    def device(self):
        return next(self.network.parameters()).device

    @classmethod
    def from_pretrained(cls, path=weights.SHIPPED, device="cpu"):
        """Load a tokenizer's folder, our best.pt, or the authors' best.pt; without a path, the one in this repository.

        A `UserError` says what is wrong with it.
        """
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
        """The waveform's codes, int64 [B, codes_per_ecg], of standardised signals, float32 [B, 12, 5000]."""
        import torch

        x = torch.as_tensor(x).to(self.device, torch.float32)
        with torch.no_grad(), true_float32(self.device.type):
            return self.network.quantizer(self.network.encode(x))[1]

    def decode_standardised(self, codes):
        """Standardised signals, float32 tensor [B, 12, 5000], of the waveform's codes [B, codes_per_ecg]."""
        import torch

        codes = torch.as_tensor(codes).to(self.device, torch.int64)
        if codes.ndim != 2 or codes.shape[1] != self.codes_per_ecg:
            raise ValueError(f"codes have the shape {tuple(codes.shape)}, [B, {self.codes_per_ecg}] is expected")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.n_codes:
            raise ValueError(f"codes must lie in 0..{self.n_codes - 1}")
        with torch.no_grad(), true_float32(self.device.type):
            return self.network.decode(self.network.quantizer.from_codes(codes))

    def encode_rows(self, x, std):
        """All codes, uint16 [B, row_length], of standardised signals.

        Parameters
        ----------
        x : float32 array [B, 12, 5000]
        std : array [B, 12]
            mV; what the leads were divided by.
        """
        codes = self.encode_standardised(x).cpu().numpy().astype(np.uint16)
        if not self.n_scales:
            return codes
        # A lead of deviation 1 spans 2 at least. A constant one spans nothing, though it was divided by 1.
        constant = np.ptp(x, axis=-1) < 1
        levels = scale_levels(np.where(constant, 0, std))
        return np.concatenate([(self.n_codes + levels).astype(np.uint16), codes], axis=1)

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
        codes : uint16 array [row_length] or [B, row_length]
        """
        signal = np.asarray(signal, dtype=np.float64)
        if signal.ndim not in (2, 3) or signal.shape[-2] != len(leads):
            raise ValueError(f"the signal has the shape {signal.shape}, [{len(leads)} leads, T] or a batch is expected")
        batch = signal if signal.ndim == 3 else signal[None]
        prepared = [_prepare(one, sample_rate, leads, policy or SignalPolicy()) for one in batch]
        codes = self.encode_rows(np.stack([x for x, _, _ in prepared]), np.stack([std for _, _, std in prepared]))
        return codes if signal.ndim == 3 else codes[0]

    def decode(self, codes):
        """Signals of codes [row_length] or [B, row_length], float32 [12, 5000] or [B, 12, 5000].

        In mV around each lead's mean where the codes hold the amplitudes, else each lead in its standard deviations.
        """
        codes = np.asarray(codes, dtype=np.int64)
        rows = np.atleast_2d(codes)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"codes have the shape {codes.shape}, [{self.row_length}] or a batch is expected")
        leads = self.row_length - self.codes_per_ecg
        levels = rows[:, :leads] - self.n_codes
        if levels.size and not 0 <= levels.min() <= levels.max() < self.n_scales:
            raise ValueError(f"the first {leads} codes must lie in {self.n_codes}..{self.n_codes + self.n_scales - 1}")
        x = self.decode_standardised(rows[:, leads:]).cpu().numpy()
        if self.n_scales:
            x = x * scales_of(levels)[..., None]
        return x if codes.ndim == 2 else x[0]


@contextlib.contextmanager
def true_float32(device_type):
    """Compute in float32 proper, whatever the process has set: no autocast, no TF32, no bf16 inside products.

    cuDNN's default, TF32, changes 0.5 % of the codes. What was set comes back at the end.
    """
    import torch

    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    parts += (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value


def _prepare(signal, sample_rate, leads, policy):
    try:
        twelve, _ = complete_leads(signal, choose_leads(leads))
    except ValueError as error:
        raise RecordError("signal", str(error)) from error
    return standardise(fit_signal(Record(twelve, sample_rate, (), "signal"), policy))


def config_to_json(config):
    """A `NetworkConfig` as the dict that is saved; what is empty is left out."""
    values = {**dataclasses.asdict(config), "levels": list(config.levels)}
    return {name: value for name, value in values.items() if value != ""}


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
        numbers = value if type(value) is tuple else (value,) if type(value) is int else ()
        # Not isinstance: to Python, a bool is an int.
        if type(value) is not wanted or not all(type(n) is int and 1 <= n <= 65536 for n in numbers):
            raise UserError(f"{path}: the tokenizer's config has {name}={value!r}")
    return NetworkConfig(**values)
