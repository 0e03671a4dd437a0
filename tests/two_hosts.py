"""Two hosts on one Linux machine, for root: network namespaces with names and addresses, and files of their own.

Each host sees its own folder at the same path (a bind mount in a mount namespace of its own), as machines without a
shared file system do; all else of the file system is this machine's.
"""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager

NAMES, ADDRESSES = ("node-a", "node-b"), ("10.77.0.1", "10.77.0.2")
ENTER = 'hostname "$1"; mount --bind "$2" "$3"; mount --bind "$4" /etc/hosts; shift 4; exec "$@"'


def can_make_hosts():
    """Whether this machine lets us."""
    if os.name != "posix" or os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return False
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    inside = ["ip", "netns", "exec", name, "unshare", "-m", "-u", "true"]
    works = made and subprocess.run(inside, capture_output=True).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return works


@contextmanager
def two_hosts(folder):
    """Yields the two `Host`; what they see as ``folder/here`` lies in ``folder/node-a`` and ``folder/node-b``."""
    spaces = [f"{name}-{os.getpid()}" for name in NAMES]
    (folder / "here").mkdir(exist_ok=True)
    lines = [f"{address} {name}" for address, name in zip(ADDRESSES, NAMES, strict=True)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    try:
        for name, space in zip(NAMES, spaces, strict=True):
            (folder / name).mkdir(exist_ok=True)
            _ip("netns", "add", space)
        a, b = (f"h{os.getpid()}{end}" for end in "ab")  # the names of interfaces are short
        _ip("link", "add", a, "netns", spaces[0], "type", "veth", "peer", "name", b, "netns", spaces[1])
        for space, interface, address in zip(spaces, (a, b), ADDRESSES, strict=True):
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", interface)
            _ip("-n", space, "link", "set", interface, "up")
            _ip("-n", space, "link", "set", "lo", "up")
        yield [Host(folder, name, space, link) for name, space, link in zip(NAMES, spaces, (a, b), strict=True)]
    finally:
        for space in spaces:
            kill_all(space)
            subprocess.run(["ip", "netns", "del", space], check=False)


class Host:
    """One of them."""

    def __init__(self, folder, name, space, link):
        self.folder, self.name, self.space, self.link = folder, name, space, link
        self.files = folder / name

    def start(self, command, **how):
        """A command on this host, as `subprocess.Popen`."""
        enter = ["ip", "netns", "exec", self.space, "unshare", "-m", "-u", "bash", "-c", ENTER, "host", self.name]
        places = [self.files, self.folder / "here", self.folder / "hosts"]
        return subprocess.Popen([*enter, *map(str, places), *command], **how)

    def kill(self):
        """All its processes at once."""
        kill_all(self.space)

    def pull_the_plug(self):
        """Its network goes without a word, and then its processes."""
        _ip("-n", self.space, "link", "set", self.link, "down")
        kill_all(self.space)


def kill_all(space):
    """Kill what runs in a network namespace."""
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    for number in map(int, found.stdout.split()):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _ip(*words):
    subprocess.run(["ip", *words], check=True)
