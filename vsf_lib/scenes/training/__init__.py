"""How the small models are made (`python -m vsf_lib scenes train`): autoencoder, judge, flow, distillation.

Each stage reads what the stages before wrote to the work folder and can be run alone; gates measured by the
judge stand between them. Nothing outside `vsf_lib scenes` imports this package.
"""

from __future__ import annotations
