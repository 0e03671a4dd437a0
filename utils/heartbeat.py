"""Which process of a run is lost: each counts in a store that the first one holds, and sees whether the others do.

Without it a machine that loses its power or its network leaves the others waiting in a collective for hours, and one
that is killed leaves them with the address of a socket.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

from utils.processes import Lost
from utils.tools import Stopped

INTERVAL_S = 2
SILENT_S = 300  # of no count, after which a process is lost; writing a large save may keep one from counting for long
GO_ON = "RESUME=true goes on from the last save, also on fewer machines if a step takes as many items"


class Heartbeat:
    """This process's counting, in a thread; `stop` ends it.

    Attributes
    ----------
    seen : dict
        Rank -> (its last count, when it changed).
    """

    def __init__(self, rank, world, store):
        self.rank, self.world, self.store = rank, world, store
        self.stopped, self.reached = threading.Event(), time.monotonic()
        self.store.set(f"host/{rank}", socket.gethostname())
        self.hosts = [store.get(f"host/{other}").decode() for other in range(world)]  # waits for all
        self.seen = {other: (None, time.monotonic()) for other in range(world)}
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()

    def _beat(self):
        for count in range(1, sys.maxsize):
            self._look(count)
            lost = self.silent_for(SILENT_S)
            if lost and not self.stopped.is_set():
                print(f"error: {self.text(lost)}; {GO_ON}", file=sys.stderr, flush=True)
                os._exit(2)  # the main thread waits in a collective, which nothing else ends
            if self.stopped.wait(INTERVAL_S):
                return

    def _look(self, count):
        try:
            self.store.set(f"beat/{self.rank}", str(count))
            for other in range(self.world):
                there = self.store.check([f"beat/{other}"])
                now = self.store.get(f"beat/{other}") if there else None
                if now != self.seen[other][0]:
                    self.seen[other] = now, time.monotonic()
            self.reached = time.monotonic()
        except RuntimeError:
            return  # the store is gone, and with it the first process: `silent_for` sees that `reached` stays behind

    def silent_for(self, seconds):
        """The ranks that have not counted for so long, nor said how they ended."""
        now = time.monotonic()
        if now - self.reached > seconds:
            return [0]
        ended = self.ended()
        silent = [other for other, (_, when) in self.seen.items() if now - when > seconds]
        return [other for other in silent if other not in ended and other != self.rank]

    def ended(self):
        """Rank -> how it said that it ended; {} where the first process, which would know, is gone."""
        try:
            keys = {other: f"ended/{other}" for other in range(self.world)}
            return {other: self.store.get(key).decode() for other, key in keys.items() if self.store.check([key])}
        except RuntimeError:
            return {}

    def stop(self, how=None):
        """Count no more, and leave word how this process ended ("" as it should)."""
        if how is not None:
            with suppress(RuntimeError):  # nobody is there to read it
                self.store.set(f"ended/{self.rank}", how)
        self.stopped.set()
        self.thread.join(5 * INTERVAL_S)  # Python must not end while it waits for the store

    def text(self, lost):
        """Who is lost, in words: the machine by its name."""
        hosts = list(dict.fromkeys(self.hosts[rank] for rank in lost))
        parts = []
        for host in hosts:
            all_of_it = [rank for rank in range(self.world) if self.hosts[rank] == host]
            ranks = [rank for rank in lost if self.hosts[rank] == host]
            numbers = ", ".join(map(str, ranks))
            if ranks == all_of_it or ranks == [0]:
                parts.append(f"machine {host} is lost (process {numbers} of {self.world} does not answer)")
            else:
                parts.append(f"process {numbers} of {self.world}, on machine {host}, is lost")
        return "; ".join(parts)


_mine = None


def start_heartbeat(rank, world):
    """Begin to count; MASTER_ADDR is the first process's machine. All processes call it, after they have joined."""
    global _mine
    if world == 1:
        return
    import torch.distributed as dist

    how = {"is_master": rank == 0, "wait_for_workers": False, "timeout": timedelta(seconds=60)}
    store = dist.TCPStore(os.environ["MASTER_ADDR"], 0, **how) if rank == 0 else None
    port = [store.port if store else None]
    dist.broadcast_object_list(port)
    _mine = Heartbeat(rank, world, store or dist.TCPStore(os.environ["MASTER_ADDR"], port[0], **how))


def end_heartbeat(error=None):
    """End counting; ``error`` is what ends this process, if anything. What to say of a lost one, or ""."""
    global _mine
    if _mine is None:
        return ""
    heartbeat, _mine = _mine, None
    text = ""
    if isinstance(error, Lost):
        time.sleep(4 * INTERVAL_S)
        lost, ended = heartbeat.silent_for(3 * INTERVAL_S), heartbeat.ended()
        if lost:
            text = f"{heartbeat.text(lost)}; {GO_ON}"
        elif failed := {rank: how for rank, how in ended.items() if how}:
            rank = min(failed)
            text = f"process {rank} of {heartbeat.world}, on machine {heartbeat.hosts[rank]}, ended: {failed[rank]}"
        if heartbeat.rank == 0:
            time.sleep(2 * INTERVAL_S)  # with it the store goes, in which the others are still looking
        heartbeat.stop()
    else:
        how = "" if error is None or isinstance(error, Stopped) else f"{type(error).__name__}: {error}"
        heartbeat.stop(" ".join(how.split())[:300])
    return text
