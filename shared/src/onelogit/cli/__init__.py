"""The commands of `onelogit`: one module per command, with its arguments and its `run` function."""
