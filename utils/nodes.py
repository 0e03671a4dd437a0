"""How a run over several machines is started: by DeepSpeed's launcher with a hostfile, or by torchrun.

Both start, on each machine, the processes of `utils.processes` with RANK, WORLD_SIZE and so on; SLURM does so itself
(`utils.slurm`). What the machines must have in common: docs/clusters.md.
"""

import os
import sys
from dataclasses import dataclass

from utils.tools import UserError


@dataclass(frozen=True)
class Machines:
    """What is said of the machines of a run; each field is the setting of the same name."""

    launcher: str = ""
    hostfile: str = ""
    include: str = ""
    nodes: int = 1
    node_rank: int = -1
    rendezvous: str = ""

    @property
    def starter(self):
        """What starts the processes: "deepspeed", "torchrun", or "" for `utils.processes`."""
        return self.launcher or ("deepspeed" if self.hostfile else "torchrun" if self.nodes > 1 else "")


HERE = Machines()  # this one alone


def slots(machines):
    """Machine -> its devices, as hostfile and INCLUDE name them; a fault in them is a `UserError`."""
    from deepspeed.launcher.runner import fetch_hostfile, parse_inclusion_exclusion

    if not os.path.isfile(machines.hostfile):
        raise UserError(f"HOSTFILE={machines.hostfile}: no such file")
    try:
        found = parse_inclusion_exclusion(fetch_hostfile(machines.hostfile), machines.include, "")
    except ValueError as error:
        raise UserError(f"HOSTFILE={machines.hostfile} INCLUDE={machines.include}: {error}") from error
    if machines.node_rank >= len(found):
        raise UserError(f"NODE_RANK={machines.node_rank}: {machines.hostfile} names {len(found)} machines, from 0 on")
    return found


def check_machines(machines):
    """A `UserError` where the settings do not say how to start."""
    if machines.starter == "deepspeed" and not machines.hostfile:
        raise UserError("LAUNCHER=deepspeed needs HOSTFILE, a file with a line `name slots=4` a machine")
    if machines.starter == "torchrun" and machines.hostfile:
        raise UserError("HOSTFILE is DeepSpeed's; LAUNCHER=torchrun takes NODES and RENDEZVOUS on each machine")
    if machines.starter == "torchrun" and machines.nodes > 1 and not machines.rendezvous:
        raise UserError("NODES needs RENDEZVOUS=host:port, where the machines meet; the host is one of them")
    host, _, port = machines.rendezvous.rpartition(":")
    if machines.rendezvous and not (host and port.isdecimal()):
        raise UserError(f"RENDEZVOUS={machines.rendezvous} is no host:port")
    if machines.starter == "torchrun" and machines.node_rank >= machines.nodes:
        raise UserError(f"NODE_RANK={machines.node_rank}: the machines of NODES={machines.nodes} are numbered from 0")


def launch_command(machines, a_machine, program):
    """The command that starts ``program`` on the run's machines.

    Parameters
    ----------
    machines : Machines
    a_machine : int
        Processes on each (torchrun; a hostfile says it itself).
    program : list of str
        A script, or ``-m`` and a module, and its arguments.
    """
    host, _, port = machines.rendezvous.rpartition(":")
    if machines.starter == "torchrun":
        where = ["--standalone"]
        if machines.rendezvous and machines.node_rank >= 0:
            where = ["--node-rank", machines.node_rank, "--master-addr", host, "--master-port", port]
        elif machines.rendezvous:
            where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", machines.rendezvous, "--rdzv-id", "heartllm"]
        counts = ["--nnodes", machines.nodes, "--nproc-per-node", a_machine]
        return [sys.executable, "-m", "torch.distributed.run", *map(str, counts + where), *program]
    where = ["--hostfile", machines.hostfile, "--force_multi", "--no_local_rank", "--log_level", "warning"]
    where += ["--master_addr", host or next(iter(slots(machines))), "--master_port", port or "29500"]
    where += ["--include", machines.include] if machines.include else []
    where += ["--no_ssh", "--node_rank", str(machines.node_rank)] if machines.node_rank >= 0 else []
    as_module, program = (["--module"], program[1:]) if program[0] == "-m" else ([], program)
    return [sys.executable, "-m", "deepspeed.launcher.runner", *where, *as_module, *program]


def launch(machines, a_machine, device, program):
    """Let the launcher take this process's place, so that a scheduler's signal reaches it."""
    if device == "cpu":  # DeepSpeed's launcher looks for GPUs otherwise
        os.environ["DS_ACCELERATOR"] = "cpu"
    command = launch_command(machines, a_machine, program)
    sys.stdout.flush()
    os.execv(command[0], command)
