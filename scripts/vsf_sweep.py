"""The script "VSF sweep" of txt2img and img2img. Only hands over between the host and vsf_lib."""

from __future__ import annotations

from typing import Any

from modules import scripts

from vsf_lib.webui import support

if support.problem() is None:
    from modules.infotext_utils import PasteField

    from vsf_lib.webui import sweep_panel, sweep_script
    from vsf_lib.webui.sweep_host import ForgeSweeps
    from vsf_lib.webui.sweep_request import TITLE

    class VSFSweep(scripts.Script):
        """See vsf_lib.webui.sweep_script."""

        def title(self) -> str:
            return TITLE

        def ui(self, is_img2img: bool) -> list[Any]:
            widgets = sweep_panel.build(self.elem_id)
            self.infotext_fields = [
                PasteField(widgets[name], reader) for name, reader in sweep_panel.READERS.items()
            ]
            return list(widgets.values())

        def run(self, p: Any, *arguments: Any) -> Any:
            return sweep_script.run(p, arguments, ForgeSweeps())
