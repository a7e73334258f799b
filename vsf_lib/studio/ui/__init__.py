"""The tab for pictures."""
