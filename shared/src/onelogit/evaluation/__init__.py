"""How well models rank labelled data: the stages of `onelogit evaluate`. None loads torch.

data -> bm25 -> systems -> run_file, scoring -> metrics, bootstrap, pairwise -> evaluation -> report -> job
"""
