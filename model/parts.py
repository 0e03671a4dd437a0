"""Which data sets and tasks a run is about, where their records and manifests lie, how often an epoch takes each."""

from dataclasses import dataclass, replace
from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.manifests import read_manifest
from model.stage import check_manifests, left_out_text, readable_items, signal_policy, stored_codes
from utils.machine import print_rank0
from utils.settings import require
from utils.tools import UserError

MANIFESTS = {"qa": "root_path_json", "report": "root_report_json"}  # task -> the setting that names their folder


@dataclass(frozen=True)
class Part:
    """A data set with a task, or in stage 2 with none.

    Attributes
    ----------
    dataset, task : str
        ``task`` is "" in stage 2.
    root : str
        Folder that the record paths start from.
    manifests : dict
        Split -> list of paths; one in stage 3, in stage 2 one for each task that has any.
    passes : float
        How often an epoch takes each of its training items.
    """

    dataset: str
    task: str
    root: str
    manifests: dict
    passes: float

    @property
    def name(self):
        """What log.jsonl and messages call it."""
        return f"{self.task} {self.dataset}".strip()


def training_parts(stage, settings):
    """The parts that a training stage learns from, data set by data set, checked; a fault is a `UserError`."""
    datasets = settings.dataset
    for name in ("dataset", "tasktype"):
        if len(set(getattr(settings, name))) < len(getattr(settings, name)):
            raise UserError(f"{name.upper()}={','.join(getattr(settings, name))}: one is named twice")
    require(settings, "root_path_ecg")
    tasks = {task: [task] for task in settings.tasktype}  # what a part is called by -> whose manifests it is read from
    if stage == "pretrain":  # which takes the ECGs of all manifests that there are
        tasks = {"": [task for task, key in MANIFESTS.items() if getattr(settings, key)] or ["report"]}
    for task in [task for group in tasks.values() for task in group]:
        require(settings, MANIFESTS[task])
    wanted = [(number, task) for number in range(len(datasets)) for task in tasks]
    passes = settings.mix or (1.0,) * len(wanted)
    if len(passes) != len(wanted) or not any(passes):
        names = ", ".join(f"{task} {datasets[number]}".strip() for number, task in wanted)
        raise UserError(f"MIX={','.join(f'{p:g}' for p in passes)}: one number for each of {names}; not all 0")
    chosen = [(*part, times) for part, times in zip(wanted, passes, strict=True) if times]
    return [_part(settings, number, task, tasks[task], times) for number, task, times in chosen]


def _part(settings, number, task, listed_by, passes):
    """The part of data set ``number``, whose manifests are those of the tasks ``listed_by``."""
    dataset, root = settings.dataset[number], _one_of("root_path_ecg", settings, number)
    folders = {name: _manifest_folder(MANIFESTS[name], settings, number) for name in listed_by}
    manifests = {
        split: [manifest_path(folder, dataset, name, split) for name, folder in folders.items()]
        for split in ("train", "valid")
    }
    for paths in manifests.values():
        check_manifests(paths, root)
    return Part(dataset, task, root, manifests, passes)


def _one_of(key, settings, number):
    """The entry of a list that belongs to data set ``number``."""
    values, datasets = getattr(settings, key), settings.dataset
    if len(values) not in (1, len(datasets)):
        raise UserError(f"{key.upper()} names {len(values)} folders, DATASET {len(datasets)} data sets")
    return values[number if len(values) > 1 else 0]


def _manifest_folder(key, settings, number):
    folder = _one_of(key, settings, number)
    # One folder for several data sets holds a folder each; manifests that it holds itself are not for all of them.
    shared = len(settings.dataset) > 1 and len(getattr(settings, key)) == 1
    return str(Path(folder) / settings.dataset[number]) if shared else folder


def read_items(plan, ecg_tokenizer):
    """The items of all parts, their ECGs encoded: ({"train": Mixture, "valid": name -> items}, left-out records' text).

    A root's ECGs are encoded once, whatever the number of parts that are about them.
    """
    from model.training_data import Item, Source, mixture, pretraining_paths, share_ecgs

    settings, policy, share = plan.settings, signal_policy(plan.settings), False
    if plan.stage == "finetune":
        share = settings.share_ecg
    read = [{split: list(map(read_manifest, paths)) for split, paths in part.manifests.items()} for part in plan.parts]
    stores, views, paths_of = {}, {}, {}
    for root in dict.fromkeys(part.root for part in plan.parts):
        here = [lists for lists, part in zip(read, plan.parts, strict=True) if part.root == root]
        paths = {split: pretraining_paths([items for lists in here for items in lists[split]]) for split in here[0]}
        paths_of[root] = list(dict.fromkeys(paths["train"] + paths["valid"]))
        how = settings.codes_root, policy, settings.workers
        stores[root] = stored_codes(ecg_tokenizer, root, paths_of[root], *how)
        good = [path for path in paths["train"] if path in stores[root]]
        numbers = range(1, settings.code_views)
        views[root] = tuple(stored_codes(ecg_tokenizer, root, good, *how, view=number) for number in numbers)
    training, valid = [], {}
    for part, lists in zip(plan.parts, read, strict=True):
        store, kept = stores[part.root], {}
        for split, manifests in lists.items():
            wanted = pretraining_paths(manifests) if plan.stage == "pretrain" else manifests[0]
            where = part.manifests[split][0], part.root, f"{part.name} {split}" if len(read) > 1 else split
            kept[split], line = readable_items(wanted, store, *where)
            print_rank0(line)
        source = Source(part.name, part.task, store, views[part.root])
        training.append(([Item(source, content) for content in kept["train"]], part.passes))
        source = Source(part.name, part.task, store)
        sampled = [Item(source, content) for content in sample(kept["valid"], settings.val_items, settings.seed)]
        valid[part.name] = share_ecgs(sampled) if share else sampled
    return {"train": mixture(training, share), "valid": valid}, left_out_text(paths_of, stores)


def exam_settings(settings):
    """An exam's settings with one data set and one task, as plain texts in place of lists; else a `UserError`."""
    plain = {}
    for key in ("dataset", "tasktype", "root_path_ecg", *MANIFESTS.values()):
        values = getattr(settings, key)
        if len(values) > 1:
            raise UserError(f"{key.upper()}={','.join(values)}: an exam is of one data set and one task at a time")
        plain[key] = values[0] if values else ""
    return replace(settings, **plain)
