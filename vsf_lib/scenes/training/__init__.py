"""How the small models are made: data, autoencoder, judge, flow training, distillation. `python -m vsf_lib scenes train`.

Each stage reads what the stage before wrote to the work folder, passes a gate measured by the judge, and can be run
alone. Nothing outside `vsf_lib scenes` imports this package.
"""

from __future__ import annotations
