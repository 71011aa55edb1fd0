"""Many cases of one statement in one test."""

import copy
import functools
import inspect
from itertools import product

import numpy as np


def each(names, values):
    """Run a test at each of the values, as `pytest.mark.parametrize` would: of one statement it makes one test.

    What fails is told with its case. Generators are as new for every case. Several multiply.
    """
    names = (names,) if isinstance(names, str) and "," not in names else names
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

    def decorate(test):
        axes = [(names, list(values)), *getattr(test, "axes", ())]
        body = getattr(test, "body", test)
        taken = {name for own, _ in axes for name in own}

        @functools.wraps(test)
        def run(**given):
            for case in product(*(cases for _, cases in axes)):
                chosen = {}
                for (own, _), value in zip(axes, case, strict=True):
                    chosen.update(zip(own, value if len(own) > 1 else (value,), strict=True))
                fresh = {k: copy.deepcopy(v) if isinstance(v, np.random.Generator) else v for k, v in given.items()}
                try:
                    body(**fresh, **chosen)
                except BaseException as error:
                    error.add_note(f"at {', '.join(f'{name} = {value!r}' for name, value in chosen.items())}")
                    raise

        run.axes, run.body = axes, body
        signature = inspect.signature(body)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in taken]
        run.__signature__ = signature.replace(parameters=kept)
        return run

    return decorate
