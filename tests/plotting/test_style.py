"""Colours, markers and letters of figures."""

import matplotlib.pyplot as plt
import pytest

from deepbures.plotting import style


@pytest.mark.parametrize("number", [1, 3, 7, 10, 30])
def test_there_are_as_many_looks_as_are_asked_for(number):
    looks = style.looks(number, style.distinct)
    assert len({look["color"] for look in looks}) == number == len(looks)
    assert {look["marker"] for look in looks} <= set(style.MARKERS)


def test_every_panel_has_a_letter_and_nothing_else():
    @style.lettered
    def drawn():
        figure, axes = style.panels(2, 14)
        figure.colorbar(axes[0, 0].imshow([[0, 1]]), ax=axes[0, 0])
        axes[1, 13].set_visible(False)
        return figure

    figure = drawn()
    panels = figure.axes[:28]
    letters = [axis.get_title(loc="left") for axis in panels]
    assert [letters[i] for i in (0, 25, 26, 27)] == ["(a)", "(z)", "(aa)", ""]
    assert figure.axes[28].get_title(loc="left") == ""
    plt.close(figure)
