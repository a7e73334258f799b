"""What the pages for pictures and for videos share: elements, numbers as typed, messages, what is suggested.

Knows neither of them, no host, and nothing of how something is made.
"""
