"""What to compute on, how precisely, with how many processes and threads."""

import datetime
import os

from utils.heartbeat import start_heartbeat
from utils.nodes import HERE, check_machines, slots
from utils.processes import free_port, visible_gpus
from utils.tools import UserError


def pick_device(wanted, local_rank=0):
    """The torch device of this process: the GPU of its rank where there is one (or is asked for), else the CPU."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("DEVICE=cuda: PyTorch sees no GPU on this machine")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(f"process {local_rank} has no GPU: PyTorch sees {torch.cuda.device_count()}; set NUM_PROCESSES")
    return torch.device("cuda", local_rank)


def pick_dtype(use_amp, device):
    """bf16 where it is asked for and the processor is fast at it, else float32.

    A CPU without AMX or AVX512-bf16 is some 80 times slower in bf16 than in float32.
    """
    import torch

    if not use_amp:
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def count_gpus():
    """GPUs that PyTorch sees: NVIDIA's, or AMD's under ROCm, without those that CUDA_VISIBLE_DEVICES hides."""
    import torch

    names = visible_gpus()
    if names and any(name.startswith("MIG") for name in names):
        return 1  # NCCL cannot join MIG instances into one run: several processes on them only where they are asked for
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def count_cores():
    """Processor cores that this process may use; where the system doesn't tell (macOS), all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_wanted(num_processes, device, machines=HERE):
    """Processes of the run, on all `Machines`: as a launcher started them, or as asked, or one a GPU, or one."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    check_machines(machines)
    if machines.hostfile:
        return sum(map(len, slots(machines).values()))
    gpus = count_gpus() if device != "cpu" else 0
    if gpus and num_processes > max(gpus, len(visible_gpus() or ())):
        raise UserError(f"NUM_PROCESSES={num_processes}: {gpus} GPU(s) to be used here, one a process")
    return machines.nodes * (num_processes or max(1, gpus))


def memory_of_a_process(device, processes):
    """("cuda" or "cpu", bytes that a process may take there): a GPU's memory, or a share of what is free now."""
    if device != "cpu" and count_gpus():
        import torch

        return "cuda", torch.cuda.get_device_properties(0).total_memory
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with open("/proc/meminfo", encoding="ascii") as lines:  # what files only borrow is free too
            known = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free = known.get("MemAvailable", free)
    except (OSError, ValueError):  # not Linux
        free = float("inf")
    return "cpu", free / processes


def set_threads(threads):
    """CPU threads of this process; 0 shares the cores among the processes of this machine. Returns the number."""
    import torch

    names = "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"  # torchrun's, DeepSpeed's
    local_world = int(next((os.environ[name] for name in names if name in os.environ), 1))
    threads = threads or max(1, count_cores() // local_world)
    torch.set_num_threads(threads)
    return threads


def start_process(stage, device, threads, use_amp):
    """Set this process up for a stage, and say how. Returns (rank, world size, device, dtype).

    ``device``, ``threads`` and ``use_amp`` are the settings of these names.
    """
    import torch

    device = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    os.environ["DS_ACCELERATOR"] = device.type  # DeepSpeed looks for itself otherwise, and may find another
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank, world = join_processes(device.type)
    threads, dtype = set_threads(threads), pick_dtype(use_amp, device)
    if rank == 0:
        precision = str(dtype).split(".")[-1]
        print(f"{stage}: {world} process(es) x {threads} thread(s) on {device.type}, {precision}", flush=True)
    return rank, world, device, dtype


def join_processes(device_type):
    """Join the other processes of this run (gloo or nccl), or stand alone. Returns (rank, world size).

    The launchers set RANK, WORLD_SIZE and so on; without them this process is alone, which DeepSpeed wants to be told.
    """
    import torch.distributed as dist

    if "RANK" not in os.environ:
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
        os.environ.update({key: str(value) for key, value in alone.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    # Machines with files of their own may encode for hours while others wait; a lost one is noticed by its heartbeat.
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=datetime.timedelta(hours=12))
    start_heartbeat(dist.get_rank(), dist.get_world_size())
    return dist.get_rank(), dist.get_world_size()


def print_rank0(*texts, **options):
    """`print` on the first process only."""
    import torch.distributed as dist

    if dist.get_rank() == 0:
        print(*texts, **options)
