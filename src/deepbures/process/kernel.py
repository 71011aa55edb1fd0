"""A Jupyter kernel in this interpreter that reads no settings and runs no start-up files."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from .environment import neutral


class KernelManager(AsyncKernelManager):
    """Starts this kernel instead of the one that is installed under the name in a notebook."""

    #: File for the output of the kernel's process, which is on the terminal by default.
    log_file: Path | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
        """The command of this kernel, which runs in the current interpreter."""
        command = [sys.executable, "-m", __name__, "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")

    async def _async_start_kernel(self, **options: Any) -> None:
        options["env"] = {
            **neutral(options.get("env") or os.environ),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        if self.log_file is None:
            await super()._async_start_kernel(**options)
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a") as log:  # the kernel keeps a handle of its own
            await super()._async_start_kernel(**options, stdout=log, stderr=log)

    start_kernel = _async_start_kernel


def logging_to(path: str | Path) -> type[KernelManager]:
    """A class of kernel managers with a file in place of the terminal for the output of kernels."""

    class LoggingKernelManager(KernelManager):
        log_file = Path(path)

    return LoggingKernelManager


class Kernel(IPKernelApp):
    """IPython's kernel without configuration files, not even those of the site."""

    def load_config_file(self, *arguments: Any, **options: Any) -> None:
        """Read nothing."""

    def _run_startup_files(self) -> None:
        """Run nothing."""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as profile:  # no file of the user is read or left behind
        os.environ["IPYTHONDIR"] = profile
        Kernel.launch_instance()
