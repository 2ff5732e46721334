"""`r1rl select`: rejection sampling, which grades completions, filters them, removes duplicates, and reports
every removal.
"""
