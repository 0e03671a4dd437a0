"""Which processes of a run see the same folder: one machine's, all machines' on a shared file system, or neither.

Found by looking, so that nobody has to say it: each process leaves a file in the folder, and sees whose are there.
"""

import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from utils.tools import UserError

TRIES, TRY_SECONDS = 4, 0.5  # a network file system may show a new file late


@dataclass(frozen=True)
class Sharers:
    """The processes that see a folder, this one among them.

    Attributes
    ----------
    ranks : tuple of int
        In order; the first one writes what is written once a folder.
    number : int
        This process's place among them.
    """

    ranks: tuple
    number: int

    @property
    def count(self):
        """How many they are."""
        return len(self.ranks)

    def share(self, values):
        """Divide what the sharers found, each a dict, evenly among them: this process's part. All processes call it."""
        found = gathered(values)
        every = {key: value for rank in self.ranks for key, value in found[rank].items()}
        return dict(list(every.items())[self.number :: self.count])


def sharers_of(folder, one_machine=False):
    """The `Sharers` of ``folder``, which is made where it is missing; with ``one_machine`` those on this one.

    All processes of a run call it; one that has joined no others is alone.
    """
    import torch.distributed as dist

    if len(hosts := gathered(socket.gethostname())) == 1:
        return Sharers((0,), 0)
    folder, rank, world = Path(folder), dist.get_rank(), len(hosts)
    mine = f".seen-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / mine).touch()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    names = gathered(mine)
    for _ in range(TRIES):
        there = set(os.listdir(folder))
        if there.issuperset(names):
            break
        time.sleep(TRY_SECONDS)
    mates = [other for other in range(world) if not one_machine or hosts[other] == hosts[rank]]
    seen = gathered(tuple(other for other in mates if names[other] in there))
    (folder / mine).unlink()  # all have looked
    if any(seen[other] != seen[rank] for other in seen[rank]):
        raise UserError(f"{folder}: processes {seen[rank]} do not see the same files there")
    return Sharers(seen[rank], seen[rank].index(rank))


def gathered(value):
    """What all processes pass, in the order of their ranks; in a process that has joined no others, its own alone."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
