"""No network; and the fixtures, where tests run."""

import gc
import os

# Looking for what to collect as often as Python does takes a twentieth of the run.
gc.set_threshold(10_000, 20, 20)
# Read when torch is imported: several threads of several processes would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when huggingface_hub is imported, so before everything else.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")


def pytest_configure(config):
    """Importing torch and all that takes seconds: the process that only hands out tests to others goes without."""
    if "PYTEST_XDIST_WORKER" in os.environ or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")
