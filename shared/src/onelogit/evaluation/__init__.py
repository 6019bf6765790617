"""How well models rank, on judged data: the stages of `onelogit evaluate`, from files to a page. None loads torch.

lines, judged -> trec, lists, beir -> first_stage -> contestants -> run_file -> scoring -> figures, moves, resampling
-> pairings, slices -> evaluation -> notes, plain, stories, tables, pictures, page -> job
"""
