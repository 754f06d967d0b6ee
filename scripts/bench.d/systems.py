"""What is compared: directories, each made by another filesystem, all on one ext4 or in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import host

PLAIN = "ext4"  # what every ratio is relative to
KIDAFS = ("kidafs crash", "kidafs power", "kidafs async")
PEERS = ("bindfs", "rclone")
ALL = (PLAIN, "tmpfs", *KIDAFS, *PEERS)
READ = (PLAIN, "tmpfs", KIDAFS[0], *PEERS)  # where nothing is stored, durability does not matter

IMAGE_BYTES = 8 << 30  # of the loop device, where there is no ext4; sparse
PAUSE = 0.005  # seconds between two systems that share no daemon


@dataclass
class Mount:
    """A directory in which a cache can be, served by `system`."""

    system: str
    dir: Path
    pid: int | None = None

    def settle(self) -> None:
        """Waits until nothing that an earlier round left behind is going on: what is written late, and what the
        daemon holds or polls in a burst."""
        if self.pid is None:
            time.sleep(PAUSE)
        else:
            host.await_quiet(self.pid)


Fill = Callable[[Path], None]


class Systems:
    """Makes mounts in a folder on ext4, and unmakes them."""

    def __init__(self, folder: Path, kidafs: Path) -> None:
        self.folder = folder
        self.kidafs = kidafs
        self.made = 0
        # No option but those given here.
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("KIDAFS_", "RCLONE_"))
        } | {"KIDAFS_CONFIG": "/dev/null"}

    @contextlib.contextmanager
    def mounts(self, names: tuple[str, ...], fill: Fill | None = None) -> Iterator[list[Mount]]:
        """A fresh mount for each name; `fill` puts into the directory beneath what is to be there before."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.mount(name, fill)) for name in names]

    @contextlib.contextmanager
    def mount(self, name: str, fill: Fill | None = None, options: tuple[str, ...] = ()) -> Iterator[Mount]:
        """One mount. A name that begins with kidafs takes `options` of `kidafs mount`."""
        folder = self.fresh()
        dir = folder / "cache"
        dir.mkdir()
        if name == PLAIN:
            if fill:
                fill(dir)
            yield Mount(name, dir)
        elif name == "tmpfs":
            with tmpfs(dir) as dir:
                if fill:
                    fill(dir)
                yield Mount(name, dir)
        elif name.startswith("kidafs"):
            if fill:
                fill(dir)
            with self.mounted(dir, *durability(name), *options) as pid:
                yield Mount(name, dir, pid)
        else:
            source = folder / "source"
            source.mkdir()
            if fill:
                fill(source)
            with peer(name, source, dir, folder) as pid:
                yield Mount(name, dir, pid)

    def fresh(self) -> Path:
        """A new empty folder on ext4."""
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def mounted(self, dir: Path, *options: str) -> Iterator[int]:
        """Serves `dir` by kidafs; gives the daemon's process."""
        # A warning explains a number, so it is shown.
        log = dir.parent / "kidafs.log"
        command = [self.kidafs, "mount", "--log-file", log, *options, dir]
        subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, check=True)
        try:
            yield int((dir / ".kidafs" / "pid").read_text())
        except BaseException:
            # Something may still be at work in it.
            self.umount(dir, "--lazy")
            raise
        ended = self.umount(dir)
        said = log.read_text().splitlines() if log.exists() else []
        if said or ended.returncode != 0:
            last = "\n  ".join([*said, ended.stderr][-3:])
            print(f"the daemon said {len(said)} lines, at the end:\n  {last}", file=sys.stderr, flush=True)

    def umount(self, dir: Path, *options: str) -> subprocess.CompletedProcess:
        """Ends the daemon of `dir` in order; nothing is mounted there afterwards in any case."""
        command = [self.kidafs, "umount", *options, dir]
        try:
            return subprocess.run(
                command,
                check=False,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            host.unmount(dir)


def durability(name: str) -> tuple[str, ...]:
    """The option that makes the kidafs of this name."""
    return ("--durability", name.split()[1])


@contextlib.contextmanager
def tmpfs(dir: Path) -> Iterator[Path]:
    """A tmpfs: one of its own for root, else a folder on the system's."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=50%", "tmpfs", dir], check=True)
        try:
            yield dir
        finally:
            host.unmount(dir)
    else:
        with host.work_folder(Path("/dev/shm")) as folder:
            yield folder


@contextlib.contextmanager
def peer(name: str, source: Path, dir: Path, folder: Path) -> Iterator[int]:
    """bindfs or rclone with their defaults, in the foreground as a child."""
    if name == "bindfs":
        command = ["bindfs", "-f", "--no-allow-other", source, dir]
    else:
        command = ["rclone", "mount", source, dir, "--vfs-cache-mode", "full"]
        command += ["--cache-dir", folder / "rclone", "--config", "/dev/null", "--log-level", "ERROR"]
        # By default it copies what was written 5 s later: in the turns of the others.
        command += ["--vfs-write-back", "0s"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=(folder / f"{name}.log").open("w"),
        start_new_session=True,
    )
    try:
        host.await_mount(dir, process)
        yield process.pid
    finally:
        host.unmount(dir)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def ext4_folder(work: Path) -> Iterator[tuple[Path, str]]:
    """A folder on ext4 as mkfs.ext4 makes it, and how it was come by: `work` itself where it is on one, else one
    on a loop device, which takes root.

    Without a journal, as the disks of small virtual machines often are, ext4 does not give a deleted file's inode
    to another for some minutes: after the deletions of a benchmark each create searches long for a free one.
    """
    kind = host.filesystem_of(work)
    suitable = kind == "ext4" and host.has_journal(work)
    if suitable or (kind == "ext4" and os.geteuid() != 0):
        yield work, "the machine's own" + ("" if suitable else ", without a journal")
        return
    if os.geteuid() != 0:
        raise host.Failure(
            f"{work} is not on ext4, which everything is compared with, and only root can make one on a loop device: "
            "run this as root, or in a copy of the project on ext4"
        )
    image, dir = work / "ext4.img", work / "ext4"
    dir.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # All is initialized at once, rather than by the kernel in the background while something is measured.
    made = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image]
    subprocess.run(made, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
    # Direct I/O, so that the image is no second page cache.
    attach = ["losetup", "--find", "--show", "--direct-io=on", image]
    device = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        subprocess.run(["mount", "-t", "ext4", device, dir], check=True)
    finally:
        # It goes with the mount, or at once if there is none.
        subprocess.run(["losetup", "--detach", device], check=True)
    try:
        yield (
            dir,
            "on a loop device with direct I/O, since the machine's own "
            + ("has no journal" if kind == "ext4" else f"filesystem is {kind}"),
        )
    finally:
        host.unmount(dir)
