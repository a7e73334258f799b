"""Pictures of any model that can be guided: what is asked for, which model, drawing, and what goes with them.

Under the command line, the benchmarks and the studio alike; knows none of them.
"""
