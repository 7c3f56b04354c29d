"""Packages of a package index that hold weights: downloaded and checked, not installed; and where they are kept."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from avad_hf.models.conversion import Package

from .files import sha256_of

# Characters of what pip says that an error repeats.
MOST_SAID = 600


def cache_folder() -> Path:
    """Where what was downloaded is kept: ``AVAD_HF_HOME``, by default ``~/.cache/avad_hf``."""
    home = os.environ.get("AVAD_HF_HOME")
    if not home:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avad_hf"
    return Path(home).expanduser()


def download_package(package: Package, folder: Path) -> Path:
    """Download a package by pip, which refuses one of another hash before it opens it.

    Raises:
        ConnectionError: If pip cannot have it; says why.
        ValueError: If something else came.
    """
    (folder / "requirements.txt").write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    options = ("--no-deps", "--no-cache-dir", "--require-hashes", "--no-input", "--disable-pip-version-check")
    # One more try, so that who is offline waits for seconds; a slow download goes on.
    tries = ("--retries", "1", "--quiet", "-r", "requirements.txt", "--dest", "package")
    done = run_pip(("download", *options, *tries), folder)
    if done.returncode:
        raise ConnectionError(f"pip cannot download {package.requirement}: {_said(done.stderr)}")
    files = list((folder / "package").iterdir())
    if len(files) != 1 or sha256_of(files[0]) != package.sha256:
        raise ValueError(f"pip downloaded something else for {package.requirement}; it is not used.")
    return files[0]


def run_pip(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python's pip in a folder."""
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)


def _said(stderr: str) -> str:
    """Why pip failed, in its words: its errors, and why it reached nobody."""
    text = " ".join(stderr.split())
    unreachable = re.search(r"\[Errno [^']*", text)
    errors = text[text.find("ERROR:") :] if "ERROR:" in text else text
    return f"{errors[:MOST_SAID]}{f' ({unreachable[0]})' if unreachable else ''}"


__all__ = ["cache_folder", "download_package"]
