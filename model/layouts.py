"""How batches may be laid out for an LLM, so that the losses are those of separate sequences: found by trying."""

import random
from dataclasses import dataclass

import torch

from model.attention import BLOCK, FLEX, use_flex
from model.packing import Example, collate
from model.sequence_attention import use_sequences

FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, KeyError)


@dataclass(frozen=True)
class Layout:
    """What an LLM computes exactly: several sequences a row, several with one beginning; and if by flex attention."""

    packed: bool
    shared: bool
    flex: bool = False

    @property
    def multiple(self):
        """As `model.packing.collate` takes it."""
        return BLOCK if self.flex else 0


def pick_layout(model, loss_of, vocabulary, longest, device_type):
    """The fastest layout that is exact: on a GPU flex attention, else attention by sequences, else a dense mask.

    Returns
    -------
    Layout
        The model is set to its attention.
    lines : list of str
        What to say of the choice.
    """
    llm = _llm(model)
    kind, before = llm.config.model_type, llm.config._attn_implementation
    lines, ways = [], {"by sequences": use_sequences}
    if device_type == "cuda":
        ways = {"flex, with a block mask over packed rows": use_flex} | ways
    for name, use in ways.items():
        exact, faults = exact_layouts(model, loss_of, vocabulary, longest, use)
        if exact == {"packed", "shared"}:
            return Layout(True, True, use is use_flex), [*lines, f"attention: {name}"]
        llm.set_attn_implementation(before)
        lines.append(f"this LLM ({kind}) has no attention {name.split(',')[0]}: {'; '.join(set(faults.values()))}")
    exact, faults = exact_layouts(model, loss_of, vocabulary, longest)
    layout = Layout("packed" in exact, "shared" in exact)
    lines.append(f"attention: {before}" + (", with a dense mask over packed rows" if layout.packed else ""))
    if not layout.packed:
        lines.append(f"one sequence a row: this LLM ({kind}) computes several in a row otherwise than single ones")
    return layout, lines


def _llm(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def exact_layouts(model, loss_of, vocabulary, longest, use=None, seed=0):
    """Which layouts of a batch give this LLM the losses of separate sequences: tried on random text.

    Learned positions that count from the row's start, recurrent layers and the like show themselves. Where layers see a
    window only, the trial is longer than it, unless all of the run's sequences are shorter.

    Parameters
    ----------
    loss_of : callable
        (model, batch) -> sum of the losses: `model.heartllm.loss_sum`.
    longest : int
        Tokens of the run's longest sequence.
    use : callable, optional
        Sets the LLM to another attention for what is packed (`use_flex`, `use_sequences`) and says whether it has it;
        compared with the LLM as it was.

    Returns
    -------
    exact : set
        Of "packed" (several sequences a row) and "shared" (several with one beginning).
    faults : dict
        Layout -> why it is not exact.
    """
    training, rng = model.training, random.Random(seed)
    model.eval()
    trials, alone = _trials(model.config, vocabulary, longest, rng), {}
    for name, examples in trials.items():
        alone[name] = [_mean_loss(model, loss_of, collate([e], vocabulary.pad, False)) for e, _ in _each(examples)]
    if use and not use(_llm(model)):
        faults = dict.fromkeys(trials, "transformers has none for it")
    else:
        multiple = BLOCK if _llm(model).config._attn_implementation == FLEX else 0
        faults = {
            name: _fault(model, loss_of, examples, alone[name], vocabulary, multiple, rng)
            for name, examples in trials.items()
        }
    model.train(training)
    faults = {name: fault for name, fault in faults.items() if fault}
    return trials.keys() - faults.keys(), faults


def _trials(config, vocabulary, longest, rng):
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    windows = [window for window in windows if isinstance(window, int) and window < longest]
    length = min(longest, max(windows, default=0) + 32)

    def text(count):
        return [rng.randrange(vocabulary.text_size) for _ in range(count)]

    beginning = text(length - 8)
    return {
        "packed": [Example(ids, ids) for ids in (text(length), text(length // 2), text(length // 2 - 1))],
        "shared": [Example(ids, ids, len(beginning)) for ids in (beginning + text(n) for n in (8, 5, 7))],
    }


def _each(examples):
    """Each example as the only one that is supervised, and the others."""
    for chosen in examples:
        first = chosen.shared + 1  # in a row, what stands before it may be another sequence's
        one = Example(chosen.input_ids, [-100] * first + chosen.labels[first:], chosen.shared)
        yield one, [Example(e.input_ids, [-100] * len(e.labels), e.shared) for e in examples if e is not chosen]


@torch.no_grad()
def _mean_loss(model, loss_of, batch):
    parameter = next(model.parameters())
    device, half = parameter.device, parameter.dtype == torch.bfloat16
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        loss = loss_of(model, {name: tensor.to(device) for name, tensor in batch.items()})
    return loss.item() / int((batch["labels"] != -100).sum())


def _fault(model, loss_of, examples, alone, vocabulary, multiple, rng):
    """Why the examples together have other losses than alone, or with other neighbours; "" where they have the same."""
    half = next(model.parameters()).dtype == torch.bfloat16
    for (one, rest), expected in zip(_each(examples), alone, strict=True):
        try:
            together, otherwise = (
                _mean_loss(model, loss_of, collate([*neighbours, one], vocabulary.pad, multiple=multiple))
                for neighbours in (rest, [_other_text(e, vocabulary, rng) for e in rest])
            )
        except torch.OutOfMemoryError:
            raise  # says nothing of the layout
        except FAULTS as error:
            return f"it takes no positions, or no mask for them ({type(error).__name__}: {str(error)[:150]})"
        # The same kernels on the same shapes: what is masked adds nothing at all, so this holds in bf16 too.
        if not abs(together - otherwise) <= (2e-3 if half else 1e-4):
            return f"losses depend on a neighbour's text, by {abs(together - otherwise):.2g} nats a token"
        # Other kernels round otherwise; in bf16 over many layers by some thousandths of the loss.
        if not abs(together - expected) <= (max(2e-2, 1e-2 * expected) if half else 1e-4):
            return f"losses differ by {abs(together - expected):.2g} nats a token"
    return ""


def _other_text(example, vocabulary, rng):
    """The example with other tokens behind its shared beginning."""
    ids = example.input_ids
    other = [rng.randrange(vocabulary.text_size) for _ in ids[example.shared :]]
    return Example(ids[: example.shared] + other, example.labels, example.shared)
