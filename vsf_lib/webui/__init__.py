"""The WebUI extension. Only modules here may import a host's `modules.*` or `backend.*`, and only inside
functions where the module is used without one.
"""
