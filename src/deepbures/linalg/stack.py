"""The state of a stack as a dataclass of arrays, all of which have the members on their first axis."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

State = TypeVar("State", bound="DataclassInstance")


def take(state: State, members: ArrayLike) -> State:
    """The state of the selected members.

    Parameters
    ----------
    state
        Instance of a dataclass. Every field is an array of shape (B, ...), one entry of the first axis per member.
    members : (B,) of bool or (m,) of int
        Mask or indices, as NumPy selects along the first axis.

    Returns
    -------
    State
        A new instance of the same class; every field has the selected members only.
    """
    return replace(state, **{field.name: getattr(state, field.name)[members] for field in fields(state)})
