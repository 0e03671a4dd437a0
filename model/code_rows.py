"""The first values of the rows that an LLM gets for the ECG's tokens.

``mean``: the mean of the LLM's own rows plus noise of their spread: every code is as near to every other. ``codec``:
the same, but what differs from code to code is a random projection of what the ECG tokenizer knows of it
(`ecg_tokenizer.code_features`): codes of like waves start alike.
"""

import torch


def mean_rows(old, number, generator):
    """``number`` rows: the mean of ``old`` [V, width] plus noise of its deviation in each column."""
    return old.mean(0) + torch.randn(number, old.shape[1], generator=generator) * old.std(0)


def codec_rows(old, features, generator):
    """A row for each row of ``features`` [n, D]: the mean of ``old`` plus a random projection of the features.

    The projection is scaled so that the new rows' deviation in each column is that of the old ones, on average over the
    columns. With one row there is nothing to tell apart: it is the mean.

    Returns
    -------
    float tensor [n, width]
    """
    centred = features - features.mean(0)
    projected = centred @ torch.randn(features.shape[1], old.shape[1], generator=generator)
    deviation = projected.std(0, correction=0).square().mean().sqrt()
    return old.mean(0) + projected / deviation.clamp(min=1e-12) * old.std(0)


def new_rows(old, vocabulary, features, generator):
    """Rows for all new tokens, float [len(new_ids), width], in the order of their ids.

    Parameters
    ----------
    old : float tensor [V, width]
        The LLM's rows of text tokens.
    vocabulary : EcgVocabulary
    features : (array [n_codes, D], array [n_scales, E]) or None
        From `ecg_tokenizer.code_features.code_features`; None takes `mean_rows` for all.
    generator : torch.Generator
    """
    rows = mean_rows(old, len(vocabulary.new_ids), generator)
    if features is None:
        return rows
    firsts = (vocabulary.first_code, vocabulary.first_scale)
    for first, of_tokens in zip(firsts, features, strict=True):
        if len(of_tokens):
            at = first - vocabulary.text_size
            rows[at : at + len(of_tokens)] = codec_rows(old, torch.as_tensor(of_tokens), generator)
    return rows


def freeze_rows(model, vocabulary):
    """Leave the new tokens' rows where they are while the rest trains; without weight decay, in whole matrices."""

    def nothing_for_them(gradient):
        gradient = gradient.clone()
        gradient[vocabulary.text_size : vocabulary.new_ids[-1] + 1] = 0
        return gradient

    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name:  # under an adapter they are a matrix of their own
            parameter.requires_grad_(False)
    weights = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    for weight in weights.values():
        if weight.requires_grad:
            weight.register_hook(nothing_for_them)
