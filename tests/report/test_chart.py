"""Charts: where points land, which numbers stand at the axes, and that nothing of a name gets out."""

import re

import numpy as np
import pytest

from groundup.report.chart import Chart, Line, Scale, draw, nice_ticks, short


def points(page: str, name: str) -> list[tuple[float, float]]:
    [path] = re.findall(rf'data-name="{name}" d="M([^"]*)"', page)
    return [(float(x), float(y)) for x, y in (point.split(" ") for point in path.split("L"))]


def drawn(**more: object) -> str:
    lines = [Line(np.array([0.0, 5.0, 10.0]), np.array([0.0, 2.0, 1.0]), "c0", "one")]
    return draw(Chart("Loss", "steps", lines, floor=0.0, **more))  # type: ignore[arg-type]


def test_points_land_where_their_values_are():
    found = points(drawn(), "one")
    assert [x for x, _ in found] == [0, 500, 1000]
    # y runs from 0 to 2 and 4 % of that above: 2 stands at 2 / 2.08 of the height, counted from below
    assert [y for _, y in found] == pytest.approx([1000, 1000 - 2000 / 2.08, 1000 - 1000 / 2.08], abs=0.1)


def test_the_script_can_read_values_back():
    page = drawn()
    x1, y1 = (float(re.search(rf'data-{name}="([^"]*)"', page)[1]) for name in ("x1", "y1"))  # type: ignore[index]
    [_, (x, y), _] = points(page, "one")
    assert x / 1000 * x1 == 5 and (1 - y / 1000) * y1 == pytest.approx(2, abs=1e-3)


def test_logarithm_is_for_positive_values_only():
    assert Scale(0.1, 1000, log=True).place(np.array([0.1, 10, 1000])).tolist() == pytest.approx([0, 0.5, 1])
    for low, log in ((0.0, "0"), (0.5, "1")):
        lines = [Line(np.array([0.0, 1.0]), np.array([low, 900.0]), "c0", "one")]
        assert f'data-log="{log}"' in draw(Chart("Norm", "steps", lines, log=True))


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (1.73, 4.2), (0, 3e-4), (0, 123456), (-2, 5), (2.0, 2.08)):
        ticks = nice_ticks(low, high)
        assert 3 <= len(ticks) <= 8 and low <= ticks[0] and ticks[-1] <= high + 1e-12
        assert len({round(b - a, 9) for a, b in zip(ticks, ticks[1:], strict=False)}) == 1


def test_time_is_told_as_on_a_clock():
    line = Line(np.array([0.0, 7200.0]), np.array([1.0, 2.0]), "c0")
    page = draw(Chart("Loss", "training time", [line]))
    assert ">30:00<" in page and ">2:00:00<" in page


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0], [-1.0, 1.0], [1e-12, 1e12]])
def test_any_values_can_be_drawn(values: list[float]):
    line = Line(np.arange(float(len(values))), np.array(values), "c0", "one")
    for log in (False, True):
        page = draw(Chart("Loss", "tokens", [line], [(1.0, "level")], [(0.0, "mark")], log=log))
        assert "nan" not in page and "inf" not in page.replace("information", "")


def test_no_points_no_chart():
    assert draw(Chart("Loss", "steps", [Line(np.zeros(0), np.zeros(0), "c0", "one")])) == ""


def test_names_are_escaped_and_told_aloud():
    lines = [
        Line(np.array([0.0, 1.0]), np.array([3.0, 2.0]), "c0", '<a"b>'),
        Line(np.array([0.0]), np.array([1.0]), "c1", "b"),
    ]
    page = draw(Chart("Loss & more", "steps", lines, [(2.0, "<level>")], [(0.5, "<mark>")]))
    assert "<a" not in page.replace("<aside", "") and "<level>" not in page and "<mark>" not in page
    assert "Loss &amp; more against steps." in page and "from 3 to 2, lowest 2, highest 3" in page


def test_short_numbers():
    assert [short(value) for value in (9999, 10_000, 123_456, 1e6, 1.24e9)] == ["9,999", "10k", "123.5k", "1M", "1.24B"]
