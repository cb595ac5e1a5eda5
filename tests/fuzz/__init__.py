"""Fuzzing: bytes that an attacker chooses, through the code that reads them.

    python -m tests.fuzz [TARGET ...] [--seconds N] [--seed N] [--corpus DIR] [--findings DIR] [--log FILE]

Two kinds of target. *Batches* (`chain`): the compiled kernels with every index checked, from frames to rows, a batch of
mutated frames at a time; a frame whose row looks like none before joins the pool. *Inputs*: one input at a time through
Python (parsers, kernels without the compiler), guided by the lines that it reaches. Whatever ends in anything but what
the code promises, takes too long, or lets memory grow is a finding: its input is kept as a file, and the run goes on.
"""
