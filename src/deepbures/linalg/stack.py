"""The state of a stack as a dataclass of arrays, each with an axis of members."""

from dataclasses import Field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

State = TypeVar("State", bound="DataclassInstance")


def take(state: State, members: ArrayLike) -> State:
    """The state of the selected members.

    Parameters
    ----------
    state
        Instance of a dataclass. Every field is an array with one entry for each of B members, along its first axis or
        along the axis that `field(metadata={"axis": …})` names.
    members : (B,) of bool, (m,) of int, an int, or a tuple of arrays of indices
        Mask or indices, as NumPy selects along an axis; an integer removes the axis, a tuple selects along several.

    Returns
    -------
    State
        A new instance of the same class; every field has the selected members only.
    """

    def selected(field: Field[Any]) -> Any:
        before = (slice(None),) * field.metadata.get("axis", 0)
        return getattr(state, field.name)[(*before, *(members if isinstance(members, tuple) else (members,)))]

    return replace(state, **{field.name: selected(field) for field in fields(state)})
