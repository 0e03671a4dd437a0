"""The codes of an ECG as real tokens of the LLM's own tokenizer.

After the last text token (id T - 1) come, in this order: ``<|PAD|>`` (T), ``<|start_ecg|>``, ``<|end_ecg|>``, one token
a code, and two reserved ones. The order is the published one, so that published embeddings fit row by row. Behind them
come the tokens of the leads' amplitudes, which the published tokenizer doesn't have.
"""

from dataclasses import dataclass

from tokenizers import AddedToken

from data_provider.read import LEADS
from utils.tools import UserError

PAD, START, END = "<|PAD|>", "<|start_ecg|>", "<|end_ecg|>"
RESERVED = ("<|ecg_mask|>", "<|ecg_infill|>")


@dataclass(frozen=True)
class EcgVocabulary:
    """Ids of the ECG's tokens.

    Attributes
    ----------
    text_size : int
        T, the number of text tokens; everything from T on belongs to the ECG.
    n_codes : int
        Number of different codes of the waveform.
    bos : tuple of int
        What the LLM's tokenizer puts before a text: one id, or nothing.
    eos : int
        The LLM's end of text.
    n_scales : int
        Levels of a lead's amplitude; 0 where an ECG's codes hold none.
    """

    text_size: int
    n_codes: int
    bos: tuple[int, ...]
    eos: int
    n_scales: int = 0

    @property
    def pad(self):
        return self.text_size

    @property
    def start(self):
        return self.text_size + 1

    @property
    def end(self):
        return self.text_size + 2

    @property
    def first_code(self):
        return self.text_size + 3

    @property
    def first_scale(self):
        return self.first_code + self.n_codes + len(RESERVED)

    @property
    def new_ids(self):
        """All ids that the text tokenizer didn't have."""
        return list(range(self.text_size, self.first_scale + self.n_scales))

    def code_ids(self, codes):
        """Token ids of an ECG's codes (sequence of int -> list of int); those from ``n_codes`` on are amplitudes."""
        gap = self.first_scale - self.n_codes
        return [int(code) + (self.first_code if code < self.n_codes else gap) for code in codes]

    def ecg_ids(self, row):
        """Token ids of an ECG's row of codes: (of its leads' amplitudes, of its waveform)."""
        ids, leads = self.code_ids(row), len(LEADS) if self.n_scales else 0
        return ids[:leads], ids[leads:]


def code_token(code):
    """The token of a code, as it stands in the saved tokenizer."""
    return f"<|ecg_{code}|>"


def scale_token(level):
    """The token of an amplitude's level, as it stands in the saved tokenizer."""
    return f"<|ecg_scale_{level}|>"


def add_ecg_tokens(tokenizer, n_codes, n_scales=0):
    """Add the ECG's tokens to a Hugging Face tokenizer, in place, and return their `EcgVocabulary`.

    A tokenizer that already has them (one that a run here has saved) keeps them.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the LLM's tokenizer has no end-of-text token (eos_token); answers could not end")
    tokens = [PAD, START, END, *(code_token(code) for code in range(n_codes)), *RESERVED]
    tokens += [scale_token(level) for level in range(n_scales)]
    known = tokenizer.get_vocab()
    if START in known:
        text_size = known.get(PAD, known[START] - 1)
        found = [known.get(token) for token in tokens]
        if found != list(range(text_size, text_size + len(tokens))) or scale_token(n_scales) in known:
            raise UserError(
                f"the LLM's tokenizer holds ECG tokens for another number of codes than {n_codes} of the waveform and "
                f"{n_scales} of amplitudes; use the tokenizer of the LLM itself"
            )
    else:
        text_size = len(tokenizer)
        added = tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        if added != len(tokens) or tokenizer.convert_tokens_to_ids(PAD) != text_size:
            raise UserError("the LLM's tokenizer already uses one of the ECG tokens' names; choose another LLM")
    tokenizer.pad_token = PAD
    tokenizer.padding_side = "left"
    return EcgVocabulary(text_size, n_codes, _bos(tokenizer), tokenizer.eos_token_id, n_scales)


def _bos(tokenizer):
    """What the tokenizer puts before a text; asked of a real text, since settings of tokenizers vary."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    return tuple(full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)])
