"""The "VSF" panel of txt2img and img2img. Only hands over between the host and vsf_lib."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import script_callbacks, scripts

from vsf_lib.webui import support

PROBLEM = support.problem()

if PROBLEM is None:
    from modules.infotext_utils import PasteField

    from vsf_lib.webui import axes, boxes, callbacks, options, panel, routes, selection
    from vsf_lib.webui.paste import READERS

    class VSF(scripts.Script):
        """See vsf_lib.webui.callbacks."""

        def __init__(self) -> None:
            self._callbacks = callbacks.Callbacks()
            self._boxes = boxes.NegativeBoxes()

        def title(self) -> str:
            return "VSF"

        def show(self, is_img2img: bool) -> Any:
            axes.register()  # every script is loaded by now, and the plot has not listed its axes yet
            return scripts.AlwaysVisible

        def after_component(self, component: Any, **kwargs: Any) -> None:
            self._boxes.component(component, kwargs.get("elem_id"))

        def ui(self, is_img2img: bool) -> list[Any]:
            widgets, line, told = panel.build(self.elem_id)
            self._boxes.switch(widgets["enabled"])
            selection.follow(line, widgets, told)
            # Without `api=`: that names a field of the API's request, and an unknown one is an error there.
            self.infotext_fields = [PasteField(widgets[name], reader) for name, reader in READERS.items()]
            self.paste_field_names = list(READERS.values())  # "Send to" compares them with the targets
            return list(widgets.values())

        def process(self, p: Any, *arguments: Any) -> None:
            self._callbacks.process(p, arguments)

        def process_batch(self, p: Any, *arguments: Any, **_: Any) -> None:
            self._callbacks.process_batch(p)

        def process_before_every_sampling(self, p: Any, *arguments: Any, **given: Any) -> None:
            self._callbacks.process_before_every_sampling(p, *(given.get(name) for name in ("x", "c", "uc")))

        def postprocess_image_after_composite(self, p: Any, pp: Any, *arguments: Any) -> None:
            self._callbacks.postprocess_image_after_composite(p, pp)

        def postprocess(self, p: Any, processed: Any, *arguments: Any) -> None:
            self._callbacks.postprocess(p, processed)

    script_callbacks.on_cfg_denoiser(callbacks.note_step)
    script_callbacks.on_ui_settings(options.add)
    script_callbacks.on_app_started(lambda _, app: routes.add(app))

else:

    class VSF(scripts.Script):
        """Says why it cannot work here, and loads nothing."""

        def title(self) -> str:
            return "VSF"

        def show(self, is_img2img: bool) -> Any:
            return scripts.AlwaysVisible

        def ui(self, is_img2img: bool) -> list[Any]:
            with gr.Accordion("VSF", open=False):
                gr.Markdown(PROBLEM)
            asked = gr.Checkbox(value=False, visible=False)  # what an API request is told apart by
            asked.do_not_save_to_config = True
            return [asked]

        def process(self, p: Any, *arguments: Any) -> None:
            if support.asked_for(arguments):
                support.refuse(p, str(PROBLEM))
