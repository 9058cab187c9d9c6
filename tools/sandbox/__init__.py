"""Code that a model wrote runs here and nowhere else.

bwrap.py     the sandbox: bubblewrap, a system call filter, limits
program.py   one program and its output
tests.py     code against tests, judged where the code cannot reach
inside/      what runs in the sandbox
"""
