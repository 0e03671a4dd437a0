"""What stages 2, 3 and the exam share: the checked plan, how records become signals, the stored codes."""

import math
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, read_manifest
from data_provider.read import SignalPolicy
from utils.runs import ITEMS_A_STEP, Identity
from utils.sharing import sharers_of
from utils.tools import UserError

SAVED = "resume/latest"  # in a training stage's folder: names the save that it goes on from (`model.training_state`)


@dataclass(frozen=True)
class Plan:
    """A run of stage 2, stage 3 or the exam that has been checked: what it reads, where it writes, what it is made of.

    Attributes
    ----------
    stage : {"pretrain", "finetune", "eval"}
    settings : Settings
    folder, llm_path : Path
    manifests : dict
        Split -> list of paths.
    inputs : dict
        Hashes of all that was read to make the plan; JSON-able.
    processes : int
    parts : list of Part
        What a training stage learns from (`model.parts`).
    lines : list of str
        What ``--plan`` says beside the number of processes.
    """

    stage: str
    settings: object
    folder: Path
    llm_path: Path
    manifests: dict
    inputs: dict
    processes: int
    parts: tuple = ()
    lines: tuple = ()

    @property
    def identity(self):
        """What the run is made of: of its batches only how many items, or tokens, they make a step."""
        decides, length, other = self.settings.parts(self.stage)
        if self.stage != "eval":
            batch = {key: decides.pop(key) for key in ("BATCH_SIZE", "ACCUMULATION")}
            if not self.settings.tokens_per_step:
                decides[ITEMS_A_STEP] = math.prod(batch.values()) * self.processes
            other |= batch
        return Identity(decides | {"inputs": self.inputs}, length, other | {"processes": self.processes})


def say_once(lines):
    """Print the lines where a run is planned, not again in each of its processes."""
    if "RANK" not in os.environ:
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def find_llm(settings):
    """The folder of the LLM; one that goes by a name is made below RESULTS."""
    from model.smollm2 import smollm2
    from model.tiny_llm import tiny_llm

    named = {"tiny": tiny_llm, "smollm2": smollm2}.get(settings.local_llm_path)
    return named(settings.results) if named else Path(settings.local_llm_path)


def check_manifests(paths, root, task="any"):
    """Read each manifest, and look whether ``root`` holds records of it; a fault is a `UserError`."""
    for path in paths:
        check_records_exist(read_manifest(path, task), root, path)


def signal_policy(settings):
    """How records become signals, from the settings."""
    return SignalPolicy(
        crop=settings.crop,
        short=settings.short_records,
        max_gap_s=settings.max_gap_s,
        lead_order=settings.lead_order,
    )


def stored_codes(tokenizer, root, paths, codes_root, policy, workers=0, view=0):
    """The store that holds the codes of these records; all processes encode what is missing, each its share.

    Processes that see the same folder (`utils.sharing`) fill one store; where each machine has files of its own, each
    fills its own one.

    Parameters
    ----------
    tokenizer : EcgTokenizer
    root : str
        Folder that the record paths start from.
    paths : list of str
    codes_root : str
        Folder of all stores.
    policy : SignalPolicy
    workers : int
        Threads that read ECG files, a process.
    view : int
        0 encodes the records as they are, n otherwise (`ecg_tokenizer.views`), into a store below that of 0.
    """
    import torch.distributed as dist

    from ecg_tokenizer.encode import encode_part, missing_records
    from ecg_tokenizer.store import CodeStore, StoreWriter, locked, merge_parts, store_folder
    from ecg_tokenizer.views import View

    folder = store_folder(codes_root, tokenizer.fingerprint, policy, root)
    if view:
        folder, policy = folder / f"view{view}", View(policy, view)
    made_with = tokenizer.fingerprint, policy
    sharers = sharers_of(folder)
    first = sharers.number == 0
    with locked(folder) if first else nullcontext():  # another run waits, and then finds the codes
        if first:
            merge_parts(folder, *made_with)
            StoreWriter(folder, *made_with, tokenizer.row_length)
        dist.barrier()
        looked_at = list(dict.fromkeys(paths))[sharers.number :: sharers.count]  # each looks at its share of the files
        missing = missing_records(CodeStore.open_as_it_is(folder, *made_with), root, looked_at)
        missing = sharers.share(missing)
        encode_part(tokenizer, root, missing, folder, policy, workers, quiet=dist.get_rank() > 0)
        dist.barrier()
        if first:
            merge_parts(folder, *made_with)
    dist.barrier()
    store = CodeStore.open_as_it_is(folder, *made_with)
    store.signatures.clear()  # only a writer compares files; here they would be 200 MB of 800,000 records
    return store


def readable_items(items, store, manifest, root, split):
    """The items all of whose ECGs have codes, and a line that says how many; none is a `UserError`."""
    from model.training_data import usable

    kept = usable(items, store)
    if not kept:
        raise UserError(f"{manifest}: no item has a readable record below {root}")
    left_out = len(items) - len(kept)
    return kept, f"{split}: {len(kept)} items" + (f", {left_out} left out (records below)" if left_out else "")


def left_out_text(paths, stores):
    """The lines that close a run: which records have no codes, and why ("" when all have).

    Parameters
    ----------
    paths, stores : dict
        Root -> list of record paths; root -> CodeStore.
    """
    bad = {}
    for root, store in stores.items():
        before = f"{root}/" if len(stores) > 1 else ""
        bad |= {before + path: store.bad.get(path, "not encoded") for path in paths[root] if path not in store}
    return bad_records_text(bad)
