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


def logging_to(path: str | Path) -> type[AsyncKernelManager]:
    """A class of kernel managers that start this kernel instead of the one that is installed under a notebook's name.

    The output of the kernel's process, which is on the terminal by default, goes to the file.
    """

    class LoggingKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", __name__, "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

        async def _async_start_kernel(self, **options: Any) -> None:
            backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
            options["env"] = {**neutral(options.get("env") or os.environ), **backend}
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(path).open("a") as log:  # the kernel keeps a handle of its own
                await super()._async_start_kernel(**options, stdout=log, stderr=log)

        start_kernel = _async_start_kernel

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
