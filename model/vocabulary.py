"""The codes of an ECG as real tokens of the LLM's own tokenizer.

After the last text token (id T - 1) come, in this order: ``<|PAD|>`` (T), ``<|start_ecg|>``, ``<|end_ecg|>``, one token
a code, and two reserved ones. The order is the published one, so that published embeddings fit row by row.
"""

from dataclasses import dataclass

from tokenizers import AddedToken

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
        Number of different codes.
    bos : tuple of int
        What the LLM's tokenizer puts before a text: one id, or nothing.
    eos : int
        The LLM's end of text.
    """

    text_size: int
    n_codes: int
    bos: tuple[int, ...]
    eos: int

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
    def new_ids(self):
        """All ids that the text tokenizer didn't have."""
        return list(range(self.text_size, self.first_code + self.n_codes + len(RESERVED)))

    def code_ids(self, codes):
        """Token ids of an ECG's codes (sequence of int -> list of int)."""
        return [self.first_code + int(code) for code in codes]


def code_token(code):
    """The token of a code, as it stands in the saved tokenizer."""
    return f"<|ecg_{code}|>"


def add_ecg_tokens(tokenizer, n_codes):
    """Add the ECG's tokens to a Hugging Face tokenizer, in place, and return their `EcgVocabulary`.

    A tokenizer that already has them (one that a run here has saved) keeps them.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the LLM's tokenizer has no end-of-text token (eos_token); answers could not end")
    tokens = [PAD, START, END, *(code_token(code) for code in range(n_codes)), *RESERVED]
    known = tokenizer.get_vocab()
    if START in known:
        text_size = known.get(PAD, known[START] - 1)
        if [known.get(token) for token in tokens] != list(range(text_size, text_size + len(tokens))):
            raise UserError(
                f"the LLM's tokenizer holds ECG tokens for another number of codes than {n_codes}; "
                "use the tokenizer of the LLM itself"
            )
    else:
        text_size = len(tokenizer)
        added = tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        if added != len(tokens) or tokenizer.convert_tokens_to_ids(PAD) != text_size:
            raise UserError("the LLM's tokenizer already uses one of the ECG tokens' names; choose another LLM")
    tokenizer.pad_token = PAD
    tokenizer.padding_side = "left"
    return EcgVocabulary(text_size, n_codes, _bos(tokenizer), tokenizer.eos_token_id)


def _bos(tokenizer):
    """What the tokenizer puts before a text; asked of a real text, since settings of tokenizers vary."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    return tuple(full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)])
