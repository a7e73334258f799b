"""The script "VSF sweep" of txt2img and img2img. Only hands over between the host and vsf_lib."""

from __future__ import annotations

from typing import Any

from modules import scripts

from vsf_lib.webui import support

if support.problem() is None:
    from modules.infotext_utils import PasteField

    from vsf_lib.webui import sweep_panel, sweep_player, sweep_script
    from vsf_lib.webui.sweep_host import ForgeSweeps
    from vsf_lib.webui.sweep_request import TITLE

    class VSFSweep(scripts.Script):
        """See vsf_lib.webui.sweep_script."""

        def __init__(self) -> None:
            self._host = ForgeSweeps()

        def title(self) -> str:
            return TITLE

        def ui(self, is_img2img: bool) -> list[Any]:
            widgets = sweep_panel.build(self.elem_id)
            self.infotext_fields = [
                PasteField(widgets[name], reader) for name, reader in sweep_panel.READERS.items()
            ]
            player = sweep_player.build(self.elem_id)
            self.on_after_component(
                lambda made: sweep_player.follow(player, made.component, self._host.films),
                elem_id=sweep_player.SOURCE.format(tab=self.tabname),
            )
            return list(widgets.values())

        def run(self, p: Any, *arguments: Any) -> Any:
            return sweep_script.run(p, arguments, self._host)
