"""`bench attention`: what guidance adds to one attention of the models that it is for, in time and memory."""

from __future__ import annotations
