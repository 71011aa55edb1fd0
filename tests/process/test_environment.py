"""Settings of the user's for other programs change no result, no figure and no kernel."""

import os
import subprocess
import sys

import pytest

from deepbures.process.environment import neutral

DRAW = """
import sys
import numpy as np
from deepbures.plotting import save
from deepbures.plotting.style import panels, styled

@styled
def figure():
    figure, axes = panels()
    axes[0, 0].plot([0, 1, 2], [1.0, 3.0, 2.0], label="a")
    axes[0, 0].legend()
    axes[0, 0].set_title("$x^2$ and text")
    return figure

save(figure(), sys.argv[1], "f")
"""
RC = """
backend: TkAgg
text.usetex: true
font.family: monospace
font.size: 20
axes.facecolor: yellow
axes.formatter.useoffset: false
savefig.facecolor: red
savefig.bbox: tight
image.cmap: jet
lines.linestyle: --
axes.grid: true
path.simplify: false
pdf.compression: 0
"""


def run(code, folder, *arguments, **environment):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_only_what_says_where_modules_are_is_kept():
    given = {"HOME": "/home/x", "PYTHONPATH": "a", "PYTHONSTARTUP": "b", "PYTHONWARNINGS": "error", "JUPYTER_PATH": "c"}
    kept = neutral({**given, "MPLBACKEND": "TkAgg", "IPYTHONDIR": "d", "PYTHONOPTIMIZE": "2", "OMP_NUM_THREADS": "1"})
    assert kept == {
        "HOME": "/home/x",
        "PYTHONPATH": "a",
        "OMP_NUM_THREADS": "1",
        "USERNAME": "nobody",
        "MPLBACKEND": "agg",
        "MATPLOTLIBRC": os.devnull,
        "JUPYTER_NO_CONFIG": "1",
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "MALLOC_TRIM_THRESHOLD_": "134217728",
    }


def test_memory_that_is_freed_is_kept_unless_the_user_says_otherwise():
    assert neutral({"MALLOC_TRIM_THRESHOLD_": "1000"})["MALLOC_TRIM_THRESHOLD_"] == "1000"


def test_a_user_has_a_name_even_where_nothing_gives_one(monkeypatch):
    import getpass
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for given, name in (({}, "nobody"), ({"USER": "ada"}, "ada"), ({"LOGNAME": "ada", "USERNAME": "x"}, "ada")):
        monkeypatch.setattr(os, "environ", neutral(given))
        assert getpass.getuser() == name


@pytest.mark.slow
def test_two_matplotlibrc_draw_the_same_bytes(tmp_path):
    # One in the working folder, which matplotlib reads before any other; the backend is what jobs are given.
    plain, own = tmp_path / "plain", tmp_path / "own"
    own.mkdir()
    (own / "matplotlibrc").write_text(RC)
    for folder in (plain, own):
        done = run(DRAW, folder, folder, MPLBACKEND="agg")
        assert done.returncode == 0, done.stderr
    for name in ("f.png", "f.pdf"):
        assert (plain / name).read_bytes() == (own / name).read_bytes()


NOTEBOOK = """
import sys
import nbformat, papermill
from deepbures.process.kernel import logging_to

cell = "import sys, os, builtins, numpy as np\\nprint(sys.executable, hasattr(builtins, 'mine'), np.array([1 / 3]), "
cell += "sys.flags.optimize, os.environ.get('PYTHONSTARTUP'))"
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
nbformat.write(notebook, "in.ipynb")
papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False, kernel_manager_class=logging_to("kernel.log"))
print(nbformat.read("out.ipynb", 4).cells[0].outputs[0].text)
"""


@pytest.mark.slow
def test_kernels_of_the_user_and_start_up_files_are_not_run(tmp_path):
    spec = tmp_path / "share/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "mine", "language": "python"}')
    startup = tmp_path / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    mine = "import builtins, numpy; builtins.mine = 1; numpy.set_printoptions(precision=1)"
    (startup / "00.py").write_text(mine)
    (startup.parent / "ipython_kernel_config.py").write_text(
        f"c = get_config(); c.InteractiveShellApp.exec_lines = [{mine!r}]"
    )
    (tmp_path / "startup.py").write_text(mine)
    done = run(
        NOTEBOOK,
        tmp_path / "work",
        JUPYTER_PATH=str(tmp_path / "share"),
        IPYTHONDIR=str(tmp_path / "ipython"),
        PYTHONSTARTUP=str(tmp_path / "startup.py"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [sys.executable, "False", "[0.33333333]", "0", "None"]


LOGGED = """
import nbformat, papermill
from deepbures.process.kernel import logging_to

cell = nbformat.v4.new_code_cell("import os, sys\\nos.system('echo below >&2')\\nprint('seen', file=sys.stderr)")
notebook = nbformat.v4.new_notebook(cells=[cell])
notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
nbformat.write(notebook, "in.ipynb")
papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False, kernel_manager_class=logging_to("logs/a.log"))
print(nbformat.read("out.ipynb", 4).cells[0].outputs[0].text)
"""


@pytest.mark.slow
def test_what_a_kernel_says_goes_to_its_log_and_not_to_the_terminal(tmp_path):
    done = run(LOGGED, tmp_path / "work")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    assert done.stdout == "seen\n\n"  # what a cell prints is in the notebook
    assert "below" in (tmp_path / "work/logs/a.log").read_text()
