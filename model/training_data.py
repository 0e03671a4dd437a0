"""From items and stored codes to the batches of a training step."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data_provider.data_factory import Mixture, epoch_steps, item_rng
from data_provider.manifests import item_paths, record_paths
from model.forecasting import causal_examples, forecast_examples
from model.packing import Example, collate, packed_length
from model.prompts import training_example


@dataclass(frozen=True)
class Source:
    """What the items of a part have in common, and which codes they are read from.

    Attributes
    ----------
    name : str
    task : {"qa", "report", ""}
    store : CodeStore
    views : tuple of CodeStore
        Of the same records encoded otherwise (`ecg_tokenizer.views`): one of these or ``store`` is drawn a pass.
    """

    name: str
    task: str
    store: object = field(repr=False)
    views: tuple = field(default=(), repr=False)

    def codes(self, paths, rng):
        """The codes of the records."""
        stores = (self.store, *self.views)
        return [(stores[rng.randrange(len(stores))] if self.views else self.store)[path] for path in paths]


class Item(NamedTuple):
    """An item of a run of several parts: ``content`` is a record path (stage 2) or an item of a manifest."""

    source: Source
    content: object

    def __repr__(self):
        return f"{self.source.name}: {self.content}"


@dataclass(frozen=True)
class StageTwo:
    """Stage 2's examples: the items hold record paths."""

    vocabulary: object
    objective: str
    packed: bool = True
    multiple: int = 0  # as `model.packing.collate` takes it

    def examples(self, item, rng):
        make = forecast_examples if self.objective == "forecast" else causal_examples
        (codes,) = item.source.codes([item.content], rng)
        return make(self.vocabulary, codes, rng)


@dataclass(frozen=True)
class StageThree:
    """Stage 3's examples: the items hold those of a QA or report manifest; or are lists of those that share an ECG."""

    vocabulary: object
    tokenizer: object
    prompts: dict
    packed: bool = True
    multiple: int = 0  # as `model.packing.collate` takes it

    def examples(self, item, rng):
        share, items = isinstance(item, list), item if isinstance(item, list) else [item]
        ecgs = items[0].source.codes(item_paths(items[0].content), rng)  # once: what shares an ECG shares its view
        prompt_parts = (self.tokenizer, self.vocabulary, self.prompts)
        return [training_example(*prompt_parts, one.content, one.source.task, ecgs, share) for one in items]


def share_ecgs(items):
    """The items in lists, one list an ECG (or pair of ECGs), in order of first appearance."""
    lists = {}
    for item in items:
        ecgs = id(item.source.store), *item_paths(item.content)  # equal paths below other roots are other ECGs
        lists.setdefault(ecgs, []).append(item)
    return list(lists.values())


def mixture(parts, share):
    """The `Mixture` of the training items of all parts.

    Parameters
    ----------
    parts : list of (list of Item, float)
        Items of a part, and how many passes an epoch makes over them.
    share : bool
        In lists of those that share an ECG (`share_ecgs`), of different parts too where an epoch takes them equally
        often.
    """
    if not share:
        return Mixture.of(parts)
    together = {}
    for items, passes in parts:
        together.setdefault((id(items[0].source.store), passes), []).extend(items)
    return Mixture.of([(share_ecgs(items), passes) for (_, passes), items in together.items()])


def pretraining_paths(manifests):
    """The ECGs that stage 2 learns from: every record that the manifests name, once."""
    return record_paths([item for items in manifests for item in items])


def usable(items, store):
    """The items all of whose ECGs are in the store (items of stage 2 are paths)."""
    return [item for item in items if all(p in store for p in ([item] if isinstance(item, str) else item_paths(item)))]


def step_batches(stage, items, shares, chosen, seed, epoch):
    """This process's batches of one step.

    Parameters
    ----------
    shares : list of list of int
        The items of each batch.
    chosen : sequence of int
        The items of the step, of all processes.

    Returns
    -------
    list of dict
        A batch (`model.packing.collate`) a share. Where a share has no items (in an epoch's last step), a batch without
        supervision stands in, so that all processes compute the same number of them.
    """
    batches = []
    for share in shares:
        if len(share):
            examples = [e for i in share for e in stage.examples(items[i], item_rng(seed, epoch, int(i)))]
        else:
            first = stage.examples(items[chosen[0]], item_rng(seed, epoch, 0))[:1]
            examples = [Example(e.input_ids, [-100] * len(e.labels)) for e in first]
        batches.append(collate(examples, stage.vocabulary.pad, stage.packed, stage.multiple))
    return batches


def validation_batches(stage, items, rank, world, batch_size, seed):
    """This process's share of the validation, the same at every call: batches in the items' order."""
    for chosen in epoch_steps(len(items), batch_size, seed, 0)[rank::world]:
        yield step_batches(stage, items, [chosen], chosen, seed, 0)[0]


def item_lengths(stage, items, rank=0, world=1):
    """Tokens of each item in a packed row, int32 [items]; 0 for those that other processes count."""
    lengths = np.zeros(len(items), dtype=np.int32)
    for index in range(rank, len(items), world):
        examples = stage.examples(items[index], item_rng(0, 0, 0))
        lengths[index] = packed_length(examples) if stage.packed else sum(len(e.input_ids) for e in examples)
    return lengths


def longest_example(stage, items, tries=256):
    """Most tokens that one sequence takes, of the items of each task with the longest texts."""

    def text_length(item, task):
        contents = [one.content for one in (item if isinstance(item, list) else [item]) if one.source.task == task]
        return max((len(str(content)) + 4000 * len(item_paths(content)) for content in contents), default=0)

    tasks = {one.source.task for item in items for one in (item if isinstance(item, list) else [item])}
    likely = items[:tries] if "" in tasks else []  # stage 2's are equally long
    for task in tasks - {""}:
        likely = likely + sorted(items, key=lambda item, task=task: text_length(item, task), reverse=True)[:tries]
    return max(len(e.input_ids) for item in likely for e in stage.examples(item, item_rng(0, 0, 0)))
