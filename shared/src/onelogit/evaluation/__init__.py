"""The stages of `onelogit evaluate`, which measures how well models rank labelled data. They load no torch.

data -> bm25 -> systems -> run_file, scoring -> metrics, bootstrap, pairwise -> evaluation -> report -> job
"""
