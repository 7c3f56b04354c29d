"""A disk of a few kilobytes, for what happens when it is full: mounted by a child process for itself alone."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TRIAL = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
needs_mounts = pytest.mark.skipif(
    subprocess.run(TRIAL, capture_output=True).returncode != 0,
    reason="a small file system that fills up can be mounted only where Linux lets users have namespaces",
)
NEW_USER_AND_MOUNTS = 0x10000000 | 0x20000  # CLONE_NEWUSER, CLONE_NEWNS


class SmallDisk:
    """A disk at a folder, for this process, which must have one thread yet, and its children; it ends with them."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        user = os.getuid(), os.getgid()
        assert ctypes.CDLL(None).unshare(NEW_USER_AND_MOUNTS) == 0
        Path("/proc/self/setgroups").write_text("deny")
        for name, own in zip(("uid_map", "gid_map"), user, strict=True):
            Path(f"/proc/self/{name}").write_text(f"0 {own} 1")
        self._mount("--make-rprivate", "/")
        self.folder.mkdir()

    def empty(self, size: int) -> None:
        """Put an empty disk of so many bytes in the place of the one before."""
        if self.folder.is_mount():
            subprocess.run(["umount", self.folder], check=True)
        self._mount("-t", "tmpfs", "-o", f"size={size}", "none", self.folder)

    def grow(self, size: int) -> None:
        """Make room, up to so many bytes."""
        self._mount("-o", f"remount,size={size}", self.folder)

    def copy(self, target: str | os.PathLike) -> None:
        """Keep what is on the disk, which ends with this process."""
        shutil.copytree(self.folder, target)

    def _mount(self, *options: str | os.PathLike) -> None:
        subprocess.run(["mount", *options], check=True)
