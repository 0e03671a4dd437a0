"""How long the quickstart will take on this machine: half a second of its kind of work, timed.

Times are processor seconds, which other work beside changes little; what is said is for cores that are free.
"""

import time

import torch

from utils.machine import count_cores
from utils.tools import entry_point

# Processor seconds of the steps on two x86-64 cores with AVX512, in a run of quickstart.sh, and of `probe` beside it
PROBE = 0.245
STEPS = {
    "simulated ECGs": 9,
    "stage 1": 114,
    "stage 2": 94,
    "stage 3 (answers)": 243,
    "stage 3 (reports)": 75,
    "the two exams": 54,
}
USED = 0.85, 4  # share of a core that the steps keep busy, and how many cores they can use at most


def probe(repeats=2):
    """Processor seconds that one thread takes for products of matrices of the embedded LLM's sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, weight = torch.full((1024, 128), 0.5), torch.full((128, 512), 0.01)
    attention = torch.full((4, 4, 330, 32), 0.1)
    begun = time.process_time()
    for _ in range(20 * repeats):
        x = torch.nn.functional.gelu(x @ weight) @ weight.T * 0.01
        torch.softmax(attention @ attention.transpose(-1, -2), -1) @ attention
    torch.set_num_threads(threads)
    return (time.process_time() - begun) / repeats


def expected_text(seconds, cores):
    """The lines that say it; ``seconds`` is what `probe` took."""
    pace = seconds / PROBE / (USED[0] * min(cores, USED[1]))
    parts = ", ".join(f"{name} {minutes(work * pace)}" for name, work in STEPS.items())
    return f"expected on {cores} free core(s): {minutes(sum(STEPS.values()) * pace)} in all\n  {parts}"


def minutes(seconds):
    """A duration as text: seconds in steps of five up to a minute and a half, minutes above."""
    return f"{max(5, round(seconds / 5) * 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"


@entry_point
def main(argv):
    """Print it."""
    print(expected_text(probe(), count_cores()))


if __name__ == "__main__":
    main()
