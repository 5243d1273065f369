"""The command line: one subcommand a function of the same name.

Argument parsing imports nothing heavy, so that `--help` and wrong arguments are answered at once.
"""
