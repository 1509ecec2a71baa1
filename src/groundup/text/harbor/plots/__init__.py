"""All plots, and all acts that a reader may meet.

In: nothing. Out: `PLOTS`, `named` (the acts that a plot is written with) and `all_acts` (those that a reader may meet).
To add a plot, write it in one of the files of this folder, or in a new one that is then named here.
"""

from functools import cache

from groundup.text.harbor.plots import odd, people, sea, search, town
from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import Act

PLOTS: tuple[Plot, ...] = search.PLOTS + people.PLOTS + sea.PLOTS + odd.PLOTS


@cache
def all_acts() -> tuple[Act, ...]:
    """Every act of the world: those any story may use, then those of each plot."""
    return town.ACTS + tuple(act for plot in PLOTS for act in plot.acts)


@cache
def named(plot: Plot) -> dict[str, tuple[Act, ...]]:
    """Name -> the acts that go by it in this plot; the plot's own come before those of the town."""
    own: dict[str, tuple[Act, ...]] = {}
    for source in (plot.acts, town.ACTS):
        found: dict[str, tuple[Act, ...]] = {}
        for act in source:
            found[act.name] = (*found.get(act.name, ()), act)
        own = found | own
    return own
