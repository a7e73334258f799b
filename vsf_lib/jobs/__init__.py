"""What work in a process of its own needs, whatever it makes: the line to it, its orders, turns and stopping.

Pictures and videos build on it; beyond the words of their messages it knows neither, and imports no torch.
"""
