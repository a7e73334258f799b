"""The axes `[VSF] ...` of the host's X/Y/Z plot: one per argument of the panel that changes a picture.

Owns their names, what a value must be, when a plot is refused before its first cell, and how a value travels,
a sweep's too: on the cell's own processing object, from where `callbacks` reads it. What a value means is
`request.read`'s.
Knows the plot by the few names of its module that extensions use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.settings import GUIDING, SHARING, Settings, field
from vsf_lib.webui.request import ARGUMENTS, HEATMAP, method_of, preset_names
from vsf_lib.webui.support import asked_for

ATTRIBUTE = "_vsf_axes"
TITLE = "VSF"
"""The script's, by which the host and its API know it."""

_ENCODES = 0.5
"""The host's cost of a new negative prompt: it loads the text encoders. Costly axes change least often."""


@dataclass(frozen=True)
class Axis:
    """One argument, as the plot offers it."""

    name: str
    label: str
    kind: type
    """float or str."""
    choices: tuple[str, ...]
    methods: frozenset[str]
    """The methods for which it means something; all for the method itself."""
    cost: float = 0.0

    def check(self, value: Any) -> None:
        """Raises SettingsError, with the axis and the value, for one that no generation takes."""
        if self.name == "preset":
            if value not in self.choices:
                raise SettingsError(
                    f"{self.label}: there is no preset {str(value)[:40]!r}: choose one of "
                    f"{', '.join(self.choices)}"
                )
            return
        # Of a method that reads it: some values are wrong for that one only.
        method = {} if self.methods >= GUIDING else {"method": min(self.methods)}
        try:
            Settings.create(**{**method, self.name: tidy(value)})
        except SettingsError as error:
            raise SettingsError(f"{self.label}: {error}") from None


def tidy(value: Any) -> Any:
    """The value that the plot writes beside the cell, which rounds to eight digits as well: a range of the
    host's is counted up in floating point.
    """
    return round(value, 8) if isinstance(value, float) else value


def axes() -> tuple[Axis, ...]:
    """All of them, in the order of the panel's arguments."""
    return tuple(_axis(name) for name in ARGUMENTS if name not in ("enabled", HEATMAP))


def _axis(name: str) -> Axis:
    if name == "preset":
        return Axis(name, "[VSF] Preset", str, preset_names(), SHARING)
    item = field(name)
    label = item.label.removeprefix("VSF ")
    return Axis(
        name,
        f"[VSF] {label[0].upper()}{label[1:]}",
        item.kind,
        item.choices,
        GUIDING | {"off"} if name == "method" else item.methods,
        _ENCODES if name == "negative_prompt" else 0.0,
    )


def values_of(p: Any) -> Mapping[str, Any]:
    """What the plot's cell asks for, by argument; nothing outside of a plot."""
    found: Mapping[str, Any] = vars(p).get(ATTRIBUTE, {})
    return found


def put(p: Any, **values: Any) -> None:
    """Puts values over what the panel holds, for the generation of `p` alone; `tidy` is the caller's."""
    # A new dictionary: the host's copies for cells share what the original holds.
    setattr(p, ATTRIBUTE, {**values_of(p), **values})


def arguments_of(p: Any) -> Sequence[Any]:
    """What the panel or an API request gives our script; nothing where it does not run."""
    for script in getattr(p.scripts, "alwayson_scripts", ()):
        if script.title() == TITLE:
            arguments: Sequence[Any] = p.script_args[script.args_from : script.args_to]
            return arguments
    return ()


def register() -> None:
    """Puts the axes into the plot's list, in place of any that an earlier load has left there."""
    from modules import scripts

    for script in scripts.scripts_data:
        plot = script.module
        if hasattr(plot, "axis_options") and hasattr(plot, "AxisOption"):
            _put(plot)
            return


def _put(plot: Any) -> None:
    places = {option.label: i for i, option in enumerate(plot.axis_options)}
    for axis in axes():
        option = _option(axis, plot)
        if axis.label in places:
            plot.axis_options[places[axis.label]] = option
        else:
            plot.axis_options.append(option)


def _option(axis: Axis, plot: Any) -> Any:
    def apply(p: Any, value: Any, _: Sequence[Any]) -> None:
        _refuse_idle(p, axis)
        put(p, **{axis.name: tidy(value)})

    def confirm(p: Any, values: Sequence[Any]) -> None:
        _refuse_off(p, axis)
        if not values:
            raise SettingsError(f"{axis.label} has no value: give it some, or choose another axis")
        for value in values:
            axis.check(value)

    return plot.AxisOption(
        axis.label,
        axis.kind,
        apply,
        confirm=confirm,
        cost=axis.cost,
        prepare=_numbers(axis, plot) if axis.kind is float else None,
        choices=(lambda: list(axis.choices)) if axis.choices else None,
    )


def _numbers(axis: Axis, plot: Any) -> Callable[[str], list[str]]:
    """Splits as the host does, and names what is neither a number nor one of its ranges."""

    def prepare(text: str) -> list[str]:
        ranges = (plot.re_range_float, plot.re_range_count_float)
        values: list[str] = plot.csv_string_to_list_strip(text)
        for value in filter(None, values):
            found = next(filter(None, (known.fullmatch(value) for known in ranges)), None)
            numbers = [value] if found is None else list(filter(None, found.groups()))
            if not all(map(_is_number, numbers)):
                raise SettingsError(
                    f"{axis.label} is {value[:40]!r}, but must be a number, or a range such as 1-2 (+0.5) or "
                    "1-2 [3]"
                )
        return values

    return prepare


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse_off(p: Any, axis: Axis) -> None:
    # The panel's switch is the user's word, and an axis changes settings only: switching on would also take
    # whatever else a closed panel holds.
    if not asked_for(arguments_of(p)):
        raise SettingsError(
            f"the plot has the axis {axis.label}, but VSF is off: switch it on (for an unguided cell use "
            "[VSF] Method with the value off), or choose another axis"
        )


def _refuse_idle(p: Any, axis: Axis) -> None:
    """Ends the whole plot, before its first cell, where no cell could show what the axis says."""
    method = method_of(arguments_of(p))
    if method not in axis.methods and _axis("method").label not in _plotted():
        raise SettingsError(
            f"the plot has the axis {axis.label}, which does nothing with the method {method}: choose "
            f"{' or '.join(sorted(axis.methods))}, or another axis"
        )


def _plotted() -> set[str]:
    """The labels of the running plot's axes, which the host notes once it knows all of them."""
    from modules import shared

    noted = (getattr(shared.state, f"xyz_plot_{letter}", None) for letter in "xyz")
    return {info.axis.label for info in noted if info is not None}
