"""The page for videos."""
